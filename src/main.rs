//! The program: command line, configuration, logs, daemon, exit code. Each step is elsewhere.

/// Gives memory back once a burst is over: after a flood of connections glibc's allocator kept a
/// tenth more than before, this one a twentieth at most (`tests/run --only garbage --long`).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::parse() {
        Ok(command) => cli::run(command),
        Err(code) => code,
    }
}
