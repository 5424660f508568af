//! Configuration files, right and wrong, through the program.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A directory that is removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a writable target directory");
        Self(path)
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("a writable directory");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("our own file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn stellwerk(arguments: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stellwerk"))
        .args(arguments)
        .env_clear()
        .envs(env.iter().copied())
        .output()
        .expect("the program starts")
}

fn check(file: &Path) -> (Option<i32>, String) {
    let output = stellwerk(&["check-config", file.to_str().expect("plain name")], &[]);
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn every_fault_names_line_key_and_remedy() {
    let folder = Folder::new("faults");
    let cases = [
        (
            "[http]\nlisn = []\n",
            "2: [http] lisn: unknown key; did you mean `listen`?",
        ),
        (
            "[htp]\nlisten = []\n",
            "2: [htp]: unknown section; did you mean `http`?",
        ),
        (
            "[rooms]\n\nport = 1\n",
            "3: [rooms] port: unknown key; it belongs under [media]",
        ),
        (
            "[http]\nzzzzzzzzzz = 1\n",
            "2: [http] zzzzzzzzzz: unknown key; remove it",
        ),
        (
            "[http]\nheader_timeout = 10\n",
            "2: [http] header_timeout: 10 is not a duration; write",
        ),
        (
            "[http]\nheader_timeout = \"1ms\"\n",
            "2: [http] header_timeout: \"1ms\" is out of range",
        ),
        (
            "[http]\nlisten = \"127.0.0.1:1\"\n",
            "2: [http] listen: \"127.0.0.1:1\" is not a list",
        ),
        ("[http]\nlisten = []\n", "2: [http] listen: is empty; name"),
        (
            "[media]\nport = 65535\nworkers = 2\n",
            "2: [media] port: 2 workers need a port each",
        ),
        (
            "[media]\nport = -1\n",
            "2: [media] port: -1 is not a whole number",
        ),
        (
            "[media]\naddresses = [\"0.0.0.0\"]\n",
            "2: [media] addresses: \"0.0.0.0\" stands for every address",
        ),
        (
            "[media]\nport = 7881\nworkers = 2\ntcp_port = 7882\n",
            "4: [media] tcp_port: 7882 is the number of a UDP port",
        ),
        (
            "[media]\nadvertise = [\"203.0.113.5:7882\"]\n",
            "2: [media] advertise: \"203.0.113.5:7882\" has a port; write the address alone",
        ),
        (
            "[media]\nadvertise = [\"ff02::1\"]\n",
            "2: [media] advertise: \"ff02::1\" is a multicast address; write",
        ),
        (
            "[media]\ninterfaces = [\"e*h\"]\n",
            "2: [media] interfaces: \"e*h\" is no name of an interface; write",
        ),
        (
            "[log]\nlevel = \"loud\"\n",
            "2: [log] level: \"loud\" is none of \"error\", \"warn\"",
        ),
        (
            "[rooms]\nauto_create = \"yes\"\n",
            "2: [rooms] auto_create: \"yes\" is neither true",
        ),
        (
            "[keys]\nk = \"short\"\n",
            "2: [keys] k: the secret has 5 characters",
        ),
        (
            "[keys]\nk = { file = \"gone\" }\n",
            "2: [keys] k: cannot read",
        ),
        (
            "[keys]\nk = 7\n",
            "2: [keys] k: is neither a secret in quotes nor",
        ),
        ("[http]\nlisten = [\n", "2: "),
        ("x = 1\n", "1: a value outside any section"),
        (
            "[http]\nconnections = 1\nconnections = 2\n",
            "3: duplicate key",
        ),
        ("[http]\n", "case.toml: [keys]: there is no API key"),
        (
            "[http]\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:1\"]\n",
            "2: [http] listen: names 127.0.0.1:1 twice",
        ),
        (
            "[http]\nconnections = 1\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n",
            "2: [http] connections: is less than the 2 addresses",
        ),
        (
            "[metrics]\nlisten = \"127.0.0.1:7880\"\n",
            "2: [metrics] listen: 127.0.0.1:7880 is in http.listen too",
        ),
        (
            "[http]\norigins = [\"https://call.example.org/\"]\n",
            "2: [http] origins: \"https://call.example.org/\" is what no browser sends",
        ),
        (
            "[media]\nport = 70000\n",
            "70000 is not a whole number in range; take at least 1 and at most 65535",
        ),
        (
            "[shutdown]\ndeadline = \"99h\"\n",
            "\"99h\" is out of range; take at least 0s and at most 86400s",
        ),
    ];
    for (text, expected) in cases {
        let file = folder.file("case.toml", text, 0o600);
        let (code, said) = check(&file);
        assert_eq!(code, Some(64), "{text}");
        assert!(
            said.contains(expected),
            "{text:?} is answered with {said:?}"
        );
    }
}

#[test]
fn a_file_in_another_encoding_is_told_so() {
    let folder = Folder::new("encodings");
    let file = folder.file("case.toml", "", 0o600);
    fs::write(&file, b"# f\xfcr alle\n").expect("a writable directory");
    let (code, said) = check(&file);
    assert_eq!(code, Some(64));
    assert!(said.contains("case.toml: is not UTF-8"), "{said}");
}

#[test]
fn all_faults_come_at_once_and_no_secret_with_them() {
    let folder = Folder::new("many");
    let text = "[http]\na = 1\n[limits]\nrooms = \"x\"\n[keys]\nk = \"hunter2\"\n";
    let (_, said) = check(&folder.file("case.toml", text, 0o600));
    assert_eq!(said.lines().count(), 3, "{said}");
    assert!(!said.contains("hunter2"));
    let (_, said) = check(&folder.file("case.toml", "keys = \"hunter2\"\n", 0o600));
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn secrets_that_everyone_can_read_do_not_pass_the_check() {
    let folder = Folder::new("modes");
    let inline = format!("[keys]\nk = \"{SECRET}\"\n");
    assert_eq!(check(&folder.file("tight.toml", &inline, 0o640)).0, Some(0));
    let (code, said) = check(&folder.file("open.toml", &inline, 0o644));
    assert_eq!(code, Some(64));
    assert!(
        said.contains("open.toml:2: [keys] k: ") && said.contains("chmod o-rwx"),
        "{said}"
    );

    let by_file = "[keys]\nk = { file = \"k.secret\" }\n";
    folder.file("k.secret", &format!("{SECRET}\n"), 0o600);
    assert_eq!(check(&folder.file("file.toml", by_file, 0o644)).0, Some(0));
    folder.file("k.secret", SECRET, 0o644);
    let (code, said) = check(&folder.file("file.toml", by_file, 0o644));
    assert_eq!(code, Some(64));
    assert!(
        said.contains("file.toml:2: [keys] k: the secret file is"),
        "{said}"
    );
}

#[test]
fn the_highest_layer_wins_and_is_named() {
    let folder = Folder::new("layers");
    let text = format!(
        "[http]\nlisten = [\"127.0.0.1:1\"]\nconnections = 7\n[media]\nport = 2000\nworkers = 3\n\
         [keys]\nmine = \"{SECRET}\"\nfiled = {{ file = \"filed.secret\" }}\n"
    );
    folder.file("filed.secret", SECRET, 0o600);
    let file = folder.file("layers.toml", &text, 0o600);
    let file = file.to_str().expect("plain name");
    let keys = format!("env:{SECRET}");
    let env = [
        ("STELLWERK_MEDIA_PORT", "3000"),
        ("STELLWERK_MEDIA_WORKERS", "4"),
        ("STELLWERK_KEYS", keys.as_str()),
    ];
    let flags = [
        "config",
        "show",
        "--effective",
        "--dev",
        "--config",
        file,
        "--workers",
        "5",
    ];
    let output = stellwerk(&flags, &env);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for line in [
        "workers = 5 # --workers".to_owned(),
        "port = 3000 # STELLWERK_MEDIA_PORT".to_owned(),
        format!("connections = 7 # {file}:3"),
        format!("listen = [\"127.0.0.1:1\"] # {file}:2"),
        "addresses = [\"127.0.0.1\"] # --dev".to_owned(),
        "header_timeout = \"10s\" # default".to_owned(),
        "\"devkey\" = \"********\" # --dev".to_owned(),
        "\"env\" = \"********\" # STELLWERK_KEYS".to_owned(),
        format!("\"filed\" = {{ file = \"filed.secret\" }} # {file}:9"),
        format!("\"mine\" = \"********\" # {file}:8"),
    ] {
        assert!(
            shown.lines().any(|shown| shown == line),
            "no {line:?} in\n{shown}"
        );
    }
    assert!(!shown.contains(SECRET));
    shown.parse::<toml::Table>().expect("what is shown is TOML");
}

#[test]
fn a_misspelt_variable_is_refused() {
    let output = stellwerk(
        &["config", "show", "--effective"],
        &[("STELLWERK_LOG_LEVL", "warn")],
    );
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("did you mean `STELLWERK_LOG_LEVEL`?"),
        "{said}"
    );
}
