//! The laboratory as a command, and what it must show: every target kept, or missed as is known.

use std::process::{Command, Output};

fn lab(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stellwerk"));
    command.arg("lab").args(arguments);
    command.output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// All scenarios with five seeds: some eight hours of calls.
#[test]
fn every_target_is_kept_or_missed_as_is_known() {
    let output = lab(&[]);
    let table = text(&output.stdout);
    assert!(output.status.success(), "{table}{}", text(&output.stderr));
    assert!(!table.contains("MISSED"), "{table}");
}

#[test]
fn a_seed_gives_the_same_figures_again() {
    let run = || text(&lab(&["--seeds", "7", "--scenario", "12", "--json"]).stdout);
    let once = run();
    assert!(once.contains("\"seed\":7"), "{once}");
    assert_eq!(once, run());
}

#[test]
fn a_page_shows_how_it_went() {
    let file = std::env::temp_dir().join(format!("stellwerk-lab-{}.html", std::process::id()));
    let path = file.to_str().expect("a path in Unicode");
    let output = lab(&["--seeds", "1..1", "--scenario", "05", "--html", path]);
    assert!(output.status.success(), "{}", text(&output.stdout));
    let page = std::fs::read_to_string(&file).expect("a page");
    std::fs::remove_file(&file).expect("it was there");
    assert_eq!(page.matches("<polyline").count(), 4, "{page}");
    assert!(page.contains("05: 3 Mbit/s") && !page.contains("http"));
}

#[test]
fn who_stands_beside_the_shard_has_figures_and_no_targets() {
    // Str0m misses most of what is wanted of the shard here.
    let arguments = [
        "--beside",
        "stock,unpadded",
        "--scenario",
        "05",
        "--seeds",
        "1..1",
    ];
    let output = lab(&arguments);
    let table = text(&output.stdout);
    assert!(output.status.success(), "{table}");
    let row = |name: &str| {
        let mut rows = table.lines().filter(|line| line.starts_with(name));
        let row = rows.next().unwrap_or_else(|| panic!("{name:?} in {table}"));
        assert!(rows.next().is_none() && !row.contains(['*', '~']), "{row}");
    };
    row("  stock ");
    row("  unpadded ");
    let json = text(&lab(&[&arguments[..], &["--json"]].concat()).stdout);
    for part in [
        "\"beside\":[",
        "\"subject\":\"stock\"",
        "\"subject\":\"unpadded\"",
    ] {
        assert!(json.contains(part), "{json}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (arguments, named) in [
        (["--scenario", "99"], "there are 01, 02"),
        (["--seeds", "5..1"], "1..5"),
        (["--beside", "shard"], "there are remb, stock, unpadded"),
        (["--seeds", "1..5000"], "at most 1000 seeds"),
    ] {
        let output = lab(&arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        let told = text(&output.stderr);
        assert!(told.contains(named), "{arguments:?}: {told}");
    }
}
