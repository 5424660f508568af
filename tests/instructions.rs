//! Guards what the parts of the packet path and of signalling cost, by counting their instructions
//! under Valgrind: no part may take 5 % more than what is committed in `instructions.tsv`. Counts,
//! unlike times, are the same on a machine that is busy with other things.
//!
//! They are those of the profile of tests, which is built anyway: other numbers than in production,
//! with assertions and little optimisation, but what makes a part longer makes it longer there too.
//! Sealing alone is not counted, as the cipher has code of its own for each kind of processor;
//! the little there is of it in `forward` is the same wherever Valgrind shows AVX2. The allocator
//! is production's, in the version of the lock file.
//!
//! Each part runs twice, this often and that often (`TIMES`), in a process of its own; the
//! difference is without its start. `cargo test --test instructions` compares, with a word behind
//! `--` only the parts that have it in their names; `-- --renew` writes the counts down. That is
//! also due with a new compiler, whose code is another.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};

#[path = "../benches/rig/mod.rs"]
#[allow(dead_code, reason = "benches use the rest")]
mod rig;

use rig::parts::{PARTS, Part};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The allocator without its thread and its clock, which are not the same in every run.
const ALLOCATOR_OPTIONS: &str = "background_thread:false,dirty_decay_ms:-1,muzzy_decay_ms:-1";

/// How often a part runs. What differs between two processes by chance, such as the keys of hash
/// maps, is small beside the difference.
const TIMES: [u64; 2] = [500, 2500];

/// More than the baseline by which a part fails.
const TOLERANCE_PERCENT: f64 = 5.0;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [flag, name, times] = &arguments[..]
        && flag == "--part"
    {
        return run(name, times);
    }
    // `--skip WORD` is for the tests beside this one.
    let skipped = |at: usize| at > 0 && arguments[at - 1] == "--skip";
    let words = arguments.iter().enumerate();
    let wanted: Vec<&String> = words
        .filter(|(at, word)| !word.starts_with('-') && !skipped(*at))
        .map(|(_, word)| word)
        .collect();
    let is_wanted = |part: &&Part| wanted.iter().all(|word| part.name.contains(word.as_str()));
    let parts = PARTS.iter().filter(|part| part.counted).filter(is_wanted);
    if let Some(reason) = obstacle() {
        println!("{reason}");
        parts.for_each(|part| println!("test {} ... ignored", part.name));
        // Where it runs for everybody, it must not be left out unnoticed.
        return ExitCode::from(u8::from(env::var_os("CI").is_some()));
    }
    let counts = parts.map(|part| (part.name, count(part)));
    match arguments.iter().any(|it| it == "--renew") {
        true => renew(counts.collect()),
        false => compare(counts),
    }
}

/// What a counted process does.
fn run(name: &str, times: &str) -> ExitCode {
    let part = PARTS.iter().find(|part| part.name == name);
    let mut work = (part.expect("a part").make)();
    let times: u64 = times.parse().expect("a number");
    (0..times).for_each(|_| work());
    ExitCode::SUCCESS
}

/// Why nothing can be counted here.
fn obstacle() -> Option<&'static str> {
    let mut version = Command::new("valgrind");
    version.arg("--version").stdout(Stdio::null());
    if !cfg!(debug_assertions) {
        Some("instructions are counted in the profile of tests only")
    } else if !cfg!(target_arch = "x86_64") {
        Some("what is committed are instructions of x86-64")
    } else if !version.status().is_ok_and(|status| status.success()) {
        Some("instructions are counted by valgrind, which is not installed")
    } else {
        None
    }
}

/// Instructions of a part, done once.
fn count(part: &Part) -> f64 {
    // At the same time: there are two cores mostly.
    let runs = TIMES.map(|times| start(part, times));
    let [few, many] = runs.map(collected);
    (many - few) / (TIMES[1] - TIMES[0]) as f64
}

fn start(part: &Part, times: u64) -> Child {
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe().expect("it runs"))
        .args(["--part", part.name, &times.to_string()])
        .env("_RJEM_MALLOC_CONF", ALLOCATOR_OPTIONS)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command.spawn().expect("valgrind starts")
}

fn collected(run: Child) -> f64 {
    let output = run.wait_with_output().expect("valgrind ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let total = said
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let total = total.and_then(|(_, total)| total.trim().parse().ok());
    total.unwrap_or_else(|| panic!("no total: {said}"))
}

/// Whether all are within what is committed.
fn compare<'a>(counts: impl Iterator<Item = (&'a str, f64)>) -> ExitCode {
    let text = fs::read_to_string(baseline_path()).expect("the baseline is committed");
    let lines = text.lines().filter_map(|line| line.split_once('\t'));
    let baseline: BTreeMap<&str, f64> = lines
        .map(|(name, count)| (name, count.parse().expect("a count")))
        .collect();
    let mut failed = false;
    for (name, count) in counts {
        let Some(before) = baseline.get(name) else {
            println!("{name}: {count:.0} instructions, and nothing to compare with");
            println!("test {name} ... FAILED");
            failed = true;
            continue;
        };
        let more = 100.0 * (count / before - 1.0);
        println!("{name}: {count:.0} instructions, {more:+.1} % of {before:.0}");
        let verdict = if more < TOLERANCE_PERCENT {
            "ok"
        } else {
            "FAILED"
        };
        println!("test {name} ... {verdict}");
        failed |= more >= TOLERANCE_PERCENT;
    }
    if failed {
        println!(
            "A part takes {TOLERANCE_PERCENT} % more than committed, or is new. If it has to, or \
             the compiler is another ({}; now {}):\n    cargo test --test instructions -- --renew",
            text.lines()
                .next()
                .unwrap_or_default()
                .trim_start_matches("# "),
            compiler()
        );
    }
    ExitCode::from(u8::from(failed))
}

fn renew(counts: Vec<(&str, f64)>) -> ExitCode {
    let mut text = format!("# {}\n", compiler());
    for (name, count) in counts {
        println!("{name}: {count:.0} instructions");
        text += &format!("{name}\t{count:.0}\n");
    }
    fs::write(baseline_path(), text).expect("the baseline can be written");
    ExitCode::SUCCESS
}

fn baseline_path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/instructions.tsv")
}

fn compiler() -> String {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output();
    let version = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    version.unwrap_or_else(|_| "an unknown compiler".to_owned())
}
