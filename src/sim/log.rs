//! What happened in a meeting, line by line. The same seed gives the same bytes: times count from
//! the start, and ids that the shard draws are numbered by their first appearance.
//!
//! Packets would be too many lines, so they go into a digest that is written once a second; two
//! runs that differ in one packet differ in the log.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// The log of a meeting.
#[derive(Debug)]
pub struct Log {
    start: Instant,
    text: String,
    names: HashMap<String, String>,
    digest: u64,
    packets: u64,
    written: Duration,
}

/// FNV-1a.
const DIGEST_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const DIGEST_PRIME: u64 = 0x0100_0000_01b3;

impl Log {
    /// An empty log.
    pub fn new(start: Instant) -> Self {
        Self {
            start,
            text: String::new(),
            names: HashMap::new(),
            digest: DIGEST_BASIS,
            packets: 0,
            written: Duration::ZERO,
        }
    }

    /// All lines so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// One line.
    pub fn line(&mut self, now: Instant, who: &str, what: std::fmt::Arguments<'_>) {
        let at = now.saturating_duration_since(self.start).as_micros();
        let _ = writeln!(self.text, "{at:>10} {who} {what}");
    }

    /// The number of an id: `TR` and 1 for the first track, and so on.
    pub fn name(&mut self, id: &str) -> String {
        let next = self.names.len() + 1;
        let prefix = id.split('_').next().unwrap_or_default();
        let name = self.names.entry(id.to_owned());
        name.or_insert_with(|| format!("{prefix}{next}")).clone()
    }

    /// A packet was received.
    pub fn packet(&mut self, now: Instant, bytes: impl IntoIterator<Item = u64>) {
        let at = now.saturating_duration_since(self.start);
        for word in bytes.into_iter().chain([at.as_micros() as u64]) {
            for byte in word.to_be_bytes() {
                self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(DIGEST_PRIME);
            }
        }
        self.packets += 1;
    }

    /// Writes the digest if a second has passed.
    pub fn beat(&mut self, now: Instant) {
        let at = now.saturating_duration_since(self.start);
        if at >= self.written + Duration::from_secs(1) {
            self.written = at;
            let (packets, digest) = (self.packets, self.digest);
            self.line(
                now,
                "-",
                format_args!("{packets} packets, digest {digest:016x}"),
            );
        }
    }
}
