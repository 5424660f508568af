//! A daemon of its own for a test or a bench, and the load tester against it: both are the program
//! as it is built.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub const STELLWERK: &str = env!("CARGO_BIN_EXE_stellwerk");

/// For the daemon to start.
const START_TIME: Duration = Duration::from_secs(20);

/// A daemon; it ends with the test.
pub struct Daemon {
    pub process: Child,
    pub port: u16,
}

/// The first of three ports in a row that are free: below those of outgoing connections, and at
/// another place in each test.
pub fn free_ports(start: u16) -> u16 {
    let all = |port: &u16| {
        let bound = (*port..*port + 3).map(|port| {
            let tcp = TcpListener::bind(("127.0.0.1", port));
            tcp.and_then(|_| UdpSocket::bind(("127.0.0.1", port)))
        });
        bound.into_iter().all(|bound| bound.is_ok())
    };
    let found = (start..start + 900).step_by(3).find(all);
    found.expect("three free ports")
}

impl Daemon {
    pub fn start(first_port: u16) -> Self {
        let port = free_ports(first_port);
        let process = Command::new(STELLWERK)
            .args(["serve", "--dev", "--workers", "1"])
            .args(["--http", &format!("127.0.0.1:{port}")])
            .args(["--metrics", &format!("127.0.0.1:{}", port + 1)])
            .args(["--media-port", &(port + 2).to_string()])
            .env_clear()
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        Self::await_port(process, port)
    }

    /// A server that was just started, as soon as clients can come.
    pub fn await_port(process: Child, port: u16) -> Self {
        let daemon = Self { process, port };
        let late = Instant::now() + START_TIME;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < late, "the daemon does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
    }

    pub fn load(&self, arguments: &str) -> Command {
        let mut load = load(self.port, arguments);
        load.args(["--pid", &self.process.id().to_string()]);
        load
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn load(port: u16, arguments: &str) -> Command {
    let mut load = Command::new(STELLWERK);
    load.args(["load", "--dev", "--url", &format!("ws://127.0.0.1:{port}")])
        .args(arguments.split_whitespace())
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    load
}

pub fn said(output: &Output) -> (Value, String) {
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (report, String::from_utf8_lossy(&output.stderr).into_owned())
}
