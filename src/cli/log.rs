//! Logging: where lines go and which ones.

use std::io::IsTerminal;

use stellwerk::config::{Log, LogFormat, LogLevel};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Has a panic logged as a line like all others. Where it happened is enough to find it; what it
/// says may quote what clients sent.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let thread = std::thread::current();
        tracing::error!(
            place = place.unwrap_or_default(),
            thread = thread.name().unwrap_or_default(),
            "a fault of the program, please report it"
        );
    }));
}

/// Starts logging to standard error; standard output is for what was asked for.
pub fn start(log: &Log) {
    log_panics();
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // Our lines only: libraries below print addresses, SDP and headers of clients.
    let ours = tracing_subscriber::registry().with(Targets::new().with_target("stellwerk", level));
    let stderr = std::io::stderr;
    match log.format {
        LogFormat::Json => {
            ours.with(layer().json().flatten_event(true).with_writer(stderr))
                .init();
        }
        LogFormat::Text => {
            ours.with(
                layer()
                    .with_ansi(stderr().is_terminal())
                    .with_writer(stderr),
            )
            .init();
        }
    }
}
