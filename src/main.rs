//! The program: command line, configuration, logs, daemon, exit code. Each step is elsewhere.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::parse() {
        Ok(command) => cli::run(command),
        Err(code) => code,
    }
}
