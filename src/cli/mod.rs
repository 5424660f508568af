//! The command line: what can be asked for, and which exit code answers.

mod config;
mod ctl;
mod doctor;
mod import;
mod lab;
mod load;
mod log;
mod matrix;
mod serve;
mod token;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Parser, Subcommand};

/// A media server (SFU) for LiveKit clients. To try it: `stellwerk serve --dev`.
#[derive(Debug, Parser)]
#[command(name = "stellwerk", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// One subcommand per task.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon.
    Serve(serve::Serve),
    /// Control a running daemon by its control socket.
    Ctl(ctl::Ctl),
    /// Print a token for a participant.
    Token(token::Token),
    /// Check a configuration file as `serve --config FILE` would read it.
    CheckConfig(config::Check),
    /// Print the configuration.
    #[command(subcommand)]
    Config(config::Config),
    /// Print what a Matrix homeserver needs.
    #[command(subcommand)]
    Matrix(matrix::Matrix),
    /// Turn a configuration of livekit-server into one of ours, and say what has no equivalent.
    ImportLivekit(import::Import),
    /// Examine a running daemon, its proxy and its homeserver, and say what to mend.
    Doctor(doctor::Doctor),
    /// Load a server with many clients, and measure what they get.
    Load(load::Load),
    /// Try how pictures adapt to bad networks, in virtual time, beside what is aimed at.
    Lab(lab::Lab),
}

/// Why a command failed, and the exit code that says so.
#[derive(Debug)]
pub enum Failure {
    /// Command line or configuration are wrong (EX_USAGE of sysexits.h).
    Usage(String),
    /// The daemon could not run.
    Run(String),
}

impl Failure {
    fn code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(64),
            Self::Run(_) => ExitCode::FAILURE,
        }
    }
}

impl From<stellwerk::config::Error> for Failure {
    fn from(error: stellwerk::config::Error) -> Self {
        Self::Usage(error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Run(text) => f.write_str(text),
        }
    }
}

/// The command that was asked for. Prints help, version or what is wrong itself.
pub fn parse() -> Result<Command, ExitCode> {
    Cli::try_parse().map(|cli| cli.command).map_err(|error| {
        // Nobody is left to be told when the terminal is gone.
        let _ = error.print();
        match error.use_stderr() {
            true => Failure::Usage(String::new()).code(),
            false => ExitCode::SUCCESS,
        }
    })
}

/// Does what was asked for.
pub fn run(command: Command) -> ExitCode {
    let done = match command {
        Command::Serve(serve) => serve.run(),
        Command::Ctl(ctl) => ctl.run(),
        Command::Token(token) => token.run(),
        Command::CheckConfig(check) => check.run(),
        Command::Config(config) => config.run(),
        Command::Matrix(matrix) => matrix.run(),
        Command::ImportLivekit(import) => import.run(),
        Command::Doctor(doctor) => return doctor.run(),
        Command::Load(load) => return code(load.run()),
        Command::Lab(lab) => return code(lab.run()),
    };
    code(done.map(|()| ExitCode::SUCCESS))
}

/// The exit code of a command; says why it failed, if it did.
fn code(done: Result<ExitCode, Failure>) -> ExitCode {
    match done {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("{failure}");
            failure.code()
        }
    }
}

/// Writes to standard output; a reader that has gone is no failure.
fn print(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// The address for HTTP at which a WebSocket's server is, too.
fn web_url(socket_url: &str) -> String {
    match socket_url.strip_prefix("ws") {
        Some(rest) => format!("http{rest}"),
        None => socket_url.to_owned(),
    }
}

/// How a program on this host reaches what listens on `address`.
fn from_this_host(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The time since 1970.
#[expect(clippy::disallowed_methods, reason = "tokens carry wall-clock times")]
fn unix_now() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}
