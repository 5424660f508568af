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
    free_row(start, 3)
}

/// The same for so many in a row.
fn free_row(start: u16, count: u16) -> u16 {
    let all = |port: &u16| {
        let bound = (*port..*port + count).map(|port| {
            let tcp = TcpListener::bind(("127.0.0.1", port));
            tcp.and_then(|_| UdpSocket::bind(("127.0.0.1", port)))
        });
        bound.into_iter().all(|bound| bound.is_ok())
    };
    let found = (start..start + 900).step_by(count.into()).find(all);
    found.expect("free ports in a row")
}

impl Daemon {
    pub fn start(first_port: u16) -> Self {
        Self::of(1, first_port)
    }

    /// One with so many workers, to which as many may come from here as want to.
    pub fn of(workers: u16, first_port: u16) -> Self {
        let port = free_row(first_port, 2 + workers);
        let process = Command::new(STELLWERK)
            .args(["serve", "--dev", "--workers", &workers.to_string()])
            .args(["--http", &format!("127.0.0.1:{port}")])
            .args(["--metrics", &format!("127.0.0.1:{}", port + 1)])
            .args(["--media-port", &(port + 2).to_string()])
            .env_clear()
            .env("STELLWERK_HTTP_CONNECTIONS_PER_ADDRESS", "0")
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

/// Does something on the first core or the last one. What it starts stays there.
pub fn on<T: Send>(side: usize, work: impl FnOnce() -> T + Send) -> T {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let core = [cores.first(), cores.last()][side].copied();
    let thread = || {
        core.map(core_affinity::set_for_current);
        work()
    };
    std::thread::scope(|scope| scope.spawn(thread).join()).expect("it does not panic")
}
