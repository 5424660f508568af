//! Logging: where lines go and which ones.

use std::io::IsTerminal;

use stellwerk::config::{Log, LogFormat, LogLevel};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging to standard error; standard output is for what was asked for.
pub fn start(log: &Log) {
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
