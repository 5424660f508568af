//! House rules that a machine can watch: which module may know which, what the packet path may not
//! do, and how long things may get. Each rule has a test that shows it can fail.
//!
//! It reads text, not syntax: strings and comments are blanked out first, test modules cut off.

use std::fs;
use std::path::{Path, PathBuf};

/// What each module may import of this crate. A module that isn't listed may import anything: only
/// `main` and `cli`, which sit on top. The longest matching prefix counts.
const ARROWS: &[(&str, &[&str])] = &[
    ("ids", &[]),
    ("units", &[]),
    ("media", &["media", "ids", "units"]),
    ("sim", &["sim", "media", "ids", "units"]),
    ("lab", &["lab", "sim", "media", "ids", "units"]),
    ("config", &["config", "media", "ids", "units"]),
    ("matrix", &["matrix", "config", "ids", "units"]),
    (
        "directory",
        &["directory", "media::message", "ids", "units"],
    ),
    ("worker", &["worker", "directory", "media", "ids", "units"]),
    (
        "signal",
        &[
            "signal",
            "config",
            "matrix",
            "directory",
            "media::message",
            "media::Limits",
            "ids",
            "units",
        ],
    ),
    (
        "metrics",
        &[
            "metrics",
            "worker",
            "signal::Stats",
            "media::counters",
            "media::message",
            "ids",
            "units",
        ],
    ),
    (
        "load",
        &[
            "load",
            "media",
            "sim::gaps",
            "sim::network",
            "sim::receiving",
            "sim::sdp",
            "worker::drops",
            "config::Secret",
            "signal::grant::Grant",
            "matrix::trust",
            "ids",
            "units",
        ],
    ),
    (
        "daemon",
        &[
            "daemon",
            "config",
            "directory",
            "matrix",
            "metrics",
            "signal",
            "worker",
            "media::message",
            "ids",
            "units",
        ],
    ),
];

/// What the media core may not mention: its adapters own sockets, clocks and protocols.
const FOREIGN_TO_MEDIA: &[&str] = &[
    "tokio",
    "UdpSocket",
    "TcpStream",
    "Mutex",
    "RwLock",
    "SystemTime",
    "Instant::now",
    "thread::sleep",
    "prost",
    "livekit_protocol",
    "axum",
    "hyper",
    "std::fs",
    "std::env",
];

/// A handshake without secrets, and who may speak of it: nothing a daemon is made of.
const FIXED_KEYS: &[&str] = &["fixed_keys"];
const MAY_NAME_FIXED_KEYS: &[&str] = &["sim", "media::fixed_keys"];

/// Files every packet goes through, in its order. All of them exist.
const HOT_PATH: &[&str] = &[
    "worker/mod.rs",
    "worker/intake.rs",
    "worker/udp.rs",
    "worker/flows.rs",
    "worker/ready.rs",
    "worker/streams.rs",
    "media/shard.rs",
    "media/demux.rs",
    "media/forwarding.rs",
    "media/uplink/mod.rs",
    "media/uplink/header.rs",
    "media/uplink/stream.rs",
    "media/uplink/gaps.rs",
    "media/packet.rs",
    "media/track.rs",
    "media/burst.rs",
    "media/relay/passing.rs",
    "worker/relay.rs",
    "media/codec/mod.rs",
    "media/codec/vp8.rs",
    "media/codec/vp9.rs",
    "media/codec/h264.rs",
    "media/codec/av1.rs",
    "media/codec/dependency.rs",
    "media/codec/red.rs",
    "media/payload_type.rs",
    "media/layers.rs",
    "media/order.rs",
    "media/rewrite.rs",
    "media/pacer.rs",
    "media/egress.rs",
    "media/wire.rs",
    "media/batch.rs",
    "media/srtp/mod.rs",
    "media/srtp/cipher.rs",
    "media/srtp/window.rs",
    "media/retransmit.rs",
    "media/keyframe.rs",
    "media/estimator/mod.rs",
    "media/rtcp/mod.rs",
];

/// What costs an allocation, a lock or formatting where every packet would pay for it.
const FOREIGN_TO_HOT_PATH: &[&str] = &[
    "format!",
    "println!",
    "trace!",
    "debug!",
    "info!",
    "warn!",
    "error!",
    "to_string",
    "Mutex",
    "HashMap::new",
    "BTreeMap::new",
];

/// Functions that run once per value, or in the life of a room or a participant, and not per
/// packet: there anything goes. `start` is the worker's.
const CONSTRUCTORS: &[&str] = &[
    "new",
    "default",
    "with_",
    "from_",
    "fmt",
    "start",
    "open_room",
    "close_room",
    "connected",
    "expel",
];

/// What nobody commits.
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "dbg!"];

const LINES_MAX: usize = 600;
const COLUMNS_MAX: usize = 100;

/// Files that may be longer, each with a reason.
const LONG_FILES: &[(&str, &str)] = &[];

/// A source file, by its path below `src`.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// `signal/livekit/wire.rs` is `signal::livekit::wire`.
    fn module(&self) -> String {
        let path = self.path.trim_end_matches(".rs").replace('/', "::");
        path.trim_end_matches("::mod").to_owned()
    }

    /// The code that ships: no comments, no text, no test modules.
    fn code(&self) -> String {
        without_tests(&blank(&self.text))
    }
}

/// Blanks out comments and the contents of strings; lines stay where they are.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match (chars[at], chars.get(at + 1)) {
            ('/', Some('/')) => find(&chars, at, |rest| rest[0] == '\n'),
            ('/', Some('*')) => find(&chars, at + 2, |rest| rest.starts_with(&['*', '/'])) + 2,
            ('r', Some('"' | '#')) if !is_word(&chars, at) => raw_string_end(&chars, at),
            ('"', _) => string_end(&chars, at),
            // A character; lifetimes have no closing quote there.
            ('\'', Some('\\')) => find(&chars, at + 3, |rest| rest[0] == '\'') + 1,
            ('\'', Some(_)) if chars.get(at + 2) == Some(&'\'') => at + 3,
            _ => at,
        };
        if end > at {
            let end = end.min(chars.len());
            let newlines = chars[at..end].iter().filter(|c| **c == '\n');
            out.extend(newlines);
            out.push(' ');
            at = end;
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    out
}

fn find(chars: &[char], from: usize, found: impl Fn(&[char]) -> bool) -> usize {
    let mut positions = from..chars.len();
    positions
        .find(|at| found(&chars[*at..]))
        .unwrap_or(chars.len())
}

fn is_word(chars: &[char], at: usize) -> bool {
    at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_')
}

fn string_end(chars: &[char], at: usize) -> usize {
    let mut end = at + 1;
    while end < chars.len() && chars[end] != '"' {
        end += if chars[end] == '\\' { 2 } else { 1 };
    }
    end + 1
}

/// `at` itself if there is no raw string there, as with raw identifiers.
fn raw_string_end(chars: &[char], at: usize) -> usize {
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    if chars.get(at + 1 + hashes) != Some(&'"') {
        return at;
    }
    let mut closing = vec!['"'];
    closing.resize(hashes + 1, '#');
    find(chars, at + 2 + hashes, |rest| rest.starts_with(&closing)) + closing.len()
}

/// Cuts every item behind `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut out = String::new();
    let mut rest = code;
    while let Some(start) = rest.find("#[cfg(test)]") {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = item_end(rest);
        rest = &rest[end..];
    }
    out + rest
}

/// The modules a file declares for tests only: `#[cfg(test)] mod tests;`.
fn test_modules(source: &Source) -> Vec<String> {
    let code = blank(&source.text);
    let mut found = Vec::new();
    for (at, attribute) in code.match_indices("#[cfg(test)]") {
        let item = &code[at + attribute.len()..];
        let item = &item[..item_end(item)];
        if let Some((_, name)) = item.trim_end_matches(';').split_once("mod ")
            && item.ends_with(';')
        {
            found.push(format!("{}::{}", source.module(), name.trim()));
        }
    }
    found
}

/// Where the item at the start of `code` ends: at its closing brace or semicolon.
fn item_end(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// All paths into this crate that the code names, `use` trees unfolded.
fn imports(module: &str, code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let own = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
        if !own {
            unfold("", &code[at + "crate::".len()..], &mut found);
        }
    }
    for (at, _) in code.match_indices("super::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let mut parent = module.to_owned();
        let mut rest = &code[at..];
        while let Some(after) = rest.strip_prefix("super::") {
            parent.truncate(parent.rfind("::").unwrap_or(0));
            rest = after;
        }
        let prefix = match parent.is_empty() {
            true => String::new(),
            false => parent + "::",
        };
        unfold(&prefix, rest, &mut found);
    }
    found
}

/// Follows a path, and each branch where it forks. Returns what follows.
fn unfold<'a>(prefix: &str, code: &'a str, found: &mut Vec<String>) -> &'a str {
    let path_end = code
        .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
        .unwrap_or(code.len());
    let (path, mut rest) = code.split_at(path_end);
    let full = format!("{prefix}{path}");
    if !rest.starts_with('{') {
        found.push(full);
        return rest;
    }
    loop {
        rest = unfold(&full, rest[1..].trim_start(), found);
        // An alias doesn't change what is imported.
        let next = rest.find([',', '}']).unwrap_or(rest.len());
        rest = &rest[next..];
        if !rest.starts_with(',') {
            return rest.get(1..).unwrap_or("");
        }
        if rest[1..].trim_start().starts_with('}') {
            let close = rest.find('}').unwrap_or(rest.len() - 1);
            return &rest[close + 1..];
        }
    }
}

fn within(path: &str, allowed: &str) -> bool {
    path.strip_prefix(allowed)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn wrong_arrows(source: &Source) -> Vec<String> {
    let module = source.module();
    let rule = ARROWS.iter().find(|(from, _)| within(&module, from));
    let Some((_, allowed)) = rule else {
        return Vec::new();
    };
    let mut wrong = imports(&module, &source.code());
    wrong.retain(|path| !allowed.iter().any(|allowed| permits(allowed, path)));
    wrong
        .iter()
        .map(|path| format!("{}: may not know {path}", source.path))
        .collect()
}

/// A path may be narrower than what is allowed; importing the bare module `media` to name
/// `media::Limits` is fine too, since every further mention is checked again by the compiler only.
fn permits(allowed: &str, path: &str) -> bool {
    within(path.trim_end_matches("::self"), allowed)
}

/// Lines of `code` outside the functions that `skip` names, with their numbers.
fn foreign_words(source: &Source, words: &[&str], skip: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let code = without_functions(&source.code(), skip);
    for word in words {
        for (at, _) in code.match_indices(word) {
            let bare = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            if bare {
                let line = code[..at].matches('\n').count() + 1;
                found.push(format!("{}:{line}: {word}", source.path));
            }
        }
    }
    found
}

/// Blanks out the bodies of functions whose names start with one of `names`.
fn without_functions(code: &str, names: &[&str]) -> String {
    let mut out = String::new();
    let mut rest = code;
    while let Some(start) = rest.find("fn ") {
        let name = &rest[start + 3..];
        let named = names.iter().any(|skip| {
            let after = name.strip_prefix(skip);
            after.is_some_and(|after| skip.ends_with('_') || after.starts_with(['(', '<']))
        });
        let end = match named {
            true => start + item_end(&rest[start..]),
            false => start + 3,
        };
        let (piece, after) = rest.split_at(end);
        match named {
            true => out.extend(piece.chars().filter(|c| *c == '\n')),
            false => out.push_str(piece),
        }
        rest = after;
    }
    out + rest
}

fn keys_in_the_clear(source: &Source) -> Vec<String> {
    let module = source.module();
    if MAY_NAME_FIXED_KEYS.iter().any(|may| within(&module, may)) {
        return Vec::new();
    }
    let declared = usize::from(source.path == "media/mod.rs");
    let found = foreign_words(source, FIXED_KEYS, &[]);
    found.into_iter().skip(declared).collect()
}

fn too_long(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let lines = source.text.lines().count();
    let excused = LONG_FILES.iter().any(|(path, _)| *path == source.path);
    if lines > LINES_MAX && !excused {
        found.push(format!("{}: {lines} lines", source.path));
    }
    for (number, line) in source.text.lines().enumerate() {
        let columns = line.chars().count();
        if columns > COLUMNS_MAX {
            found.push(format!("{}:{}: {columns} columns", source.path, number + 1));
        }
    }
    found
}

/// The rules over all files; files that are tests as a whole need only be short.
fn complaints_of_tree(sources: &[Source]) -> Vec<String> {
    let tests: Vec<String> = sources.iter().flat_map(test_modules).collect();
    let is_test = |source: &Source| tests.iter().any(|test| within(&source.module(), test));
    let check = |source| match is_test(source) {
        true => too_long(source),
        false => complaints(source),
    };
    sources.iter().flat_map(check).collect()
}

/// Every rule over one file.
fn complaints(source: &Source) -> Vec<String> {
    let mut found = wrong_arrows(source);
    if within(&source.module(), "media") {
        found.extend(foreign_words(source, FOREIGN_TO_MEDIA, &[]));
    }
    if HOT_PATH.contains(&source.path.as_str()) {
        found.extend(foreign_words(source, FOREIGN_TO_HOT_PATH, CONSTRUCTORS));
    }
    found.extend(foreign_words(source, UNFINISHED, &[]));
    found.extend(keys_in_the_clear(source));
    found.extend(too_long(source));
    found
}

fn read_tree(root: &Path, folder: &Path, sources: &mut Vec<Source>) {
    let entries = fs::read_dir(folder).expect("a readable folder");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a readable entry").path())
        .collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            read_tree(root, &path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a readable file");
            let below = path.strip_prefix(root).expect("a path below the root");
            sources.push(Source::new(&below.to_string_lossy(), &text));
        }
    }
}

#[test]
fn the_tree_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    read_tree(&root, &root, &mut sources);
    assert!(sources.len() > 10, "the tree was not found");
    let found = complaints_of_tree(&sources);
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

fn complain(path: &str, text: &str) -> Vec<String> {
    complaints(&Source::new(path, text))
}

#[test]
fn wrong_arrows_are_found() {
    for (path, text) in [
        ("media/room.rs", "use crate::signal::Stats;"),
        ("media/room.rs", "use crate::{ids::RoomName, worker::udp};"),
        ("media/room.rs", "fn f() { crate::config::SAMPLE.len(); }"),
        ("media/room.rs", "use super::super::directory::Mail;"),
        (
            "signal/livekit/wire.rs",
            "use crate::media::rewrite::Rewrite;",
        ),
        (
            "signal/mod.rs",
            "use crate::media::{message::Notice, srtp};",
        ),
        ("worker/mod.rs", "use crate::metrics;"),
        ("directory.rs", "use crate::worker::Handle;"),
        ("ids.rs", "use crate::units::Bitrate;"),
        ("metrics/mod.rs", "use crate::signal::grant::Verifier;"),
    ] {
        assert_eq!(complain(path, text).len(), 1, "{path}: {text}");
    }
}

#[test]
fn right_arrows_are_let_through() {
    for (path, text) in [
        (
            "media/room.rs",
            "use super::message::{Command, Notice as N, };",
        ),
        ("media/codec/vp8.rs", "use super::super::packet::Packet;"),
        (
            "signal/livekit/wire.rs",
            "use crate::media::message::{self, Kind};",
        ),
        (
            "signal/mod.rs",
            "use crate::media::Limits; use crate::ids::RoomName;",
        ),
        (
            "signal/mod.rs",
            "// crate::worker\nconst A: &str = \"crate::worker\";",
        ),
        (
            "worker/mod.rs",
            "use crate::{directory::{Directory, Mail}, media::Shard};",
        ),
        (
            "daemon.rs",
            "use crate::worker::{self, Handle}; use crate::signal::{self, Stats};",
        ),
        ("cli/mod.rs", "use crate::daemon;"),
    ] {
        assert_eq!(complain(path, text), Vec::<String>::new(), "{path}: {text}");
    }
}

#[test]
fn foreign_words_are_found_in_code_only() {
    let found = |path: &str, text: &str| !complain(path, text).is_empty();
    assert!(found(
        "media/room.rs",
        "fn f() { let now = Instant::now(); }"
    ));
    assert!(found("media/room.rs", "use std::sync::Mutex;"));
    assert!(found("media/peer/dtls.rs", "use tokio::sync::mpsc;"));
    assert!(!found(
        "media/room.rs",
        "// Instant::now() is the worker's.\n"
    ));
    assert!(!found(
        "media/room.rs",
        "/* tokio */ const A: &str = r#\"a \"tokio\" b\"#;"
    ));
    let test = "#[cfg(test)]\nmod tests { fn f() { Instant::now(); } }";
    assert!(!found("media/room.rs", test));
    assert!(found(
        "media/room.rs",
        &format!("{test}\nfn g() {{ Instant::now(); }}")
    ));
    assert!(!found("worker/mod.rs", "fn f() { Instant::now(); }"));
}

#[test]
fn costs_are_found_on_the_packet_path_only() {
    let found = |path: &str, text: &str| !complain(path, text).is_empty();
    assert!(found(
        "media/rewrite.rs",
        "fn f(&self) { let a = format!(\"{}\", 1); }"
    ));
    assert!(found("media/rewrite.rs", "fn f() { 1.to_string(); }"));
    assert!(found(
        "worker/udp.rs",
        "fn send() { tracing::info!(\"sent\"); }"
    ));
    assert!(found(
        "media/packet.rs",
        "fn f() { let map = HashMap::new(); }"
    ));
    assert!(!found(
        "media/packet.rs",
        "fn new() -> Self { Self { a: HashMap::new() } }"
    ));
    assert!(found(
        "media/packet.rs",
        "fn newer() -> Self { Self { a: HashMap::new() } }"
    ));
    assert!(!found(
        "media/room.rs",
        "fn f() { let a = format!(\"{}\", 1); }"
    ));
}

#[test]
fn fixed_keys_are_for_the_simulator_only() {
    let found = |path, text| keys_in_the_clear(&Source::new(path, text)).len();
    let opens = "fn open() { crate::media::fixed_keys::shard(config); }";
    for path in [
        "worker/mod.rs",
        "daemon.rs",
        "cli/serve.rs",
        "media/room.rs",
    ] {
        assert_eq!(found(path, opens), 1, "{path}");
    }
    assert_eq!(found("sim/meeting.rs", opens), 0);
    let declaration = "pub mod fixed_keys;";
    assert_eq!(found("media/mod.rs", declaration), 0);
    assert_eq!(
        found(
            "media/mod.rs",
            &format!("{declaration} use fixed_keys::shard;")
        ),
        1
    );
}

#[test]
fn files_of_tests_may_read_the_clock() {
    let clock = "fn f() { Instant::now(); }";
    let parent = Source::new("media/peer/mod.rs", "#[cfg(test)]\nmod tests;\nmod dtls;\n");
    let tests = Source::new("media/peer/tests.rs", clock);
    let dtls = Source::new("media/peer/dtls.rs", clock);
    let found = complaints_of_tree(&[parent, tests, dtls]);
    assert_eq!(found, ["media/peer/dtls.rs:1: Instant::now"]);
}

#[test]
fn unfinished_and_long_things_are_found() {
    assert_eq!(complain("units.rs", "fn f() { todo!() }").len(), 1);
    assert_eq!(complain("units.rs", "fn f() { dbg!(1); }").len(), 1);
    assert_eq!(complain("units.rs", &"x\n".repeat(LINES_MAX + 1)).len(), 1);
    assert_eq!(complain("units.rs", &"\n".repeat(LINES_MAX)).len(), 0);
    assert_eq!(complain("units.rs", &"ä".repeat(COLUMNS_MAX + 1)).len(), 1);
    assert_eq!(complain("units.rs", &"ä".repeat(COLUMNS_MAX)).len(), 0);
}
