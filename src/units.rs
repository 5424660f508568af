//! Quantities that carry their unit.

use std::fmt;
use std::time::Duration;

/// Bits per second.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Bitrate(u64);

impl Bitrate {
    /// No bits at all.
    pub const ZERO: Bitrate = Bitrate(0);

    /// More than anything carries.
    pub const MAX: Bitrate = Bitrate(u64::MAX);

    /// From bits per second.
    pub const fn bps(bits: u64) -> Self {
        Self(bits)
    }

    /// From kilobits (1000 bits) per second.
    pub const fn kbps(kilobits: u64) -> Self {
        Self(kilobits * 1000)
    }

    /// The rate at which `bytes` pass in `span`; zero for an empty span.
    pub fn of(bytes: u64, span: Duration) -> Self {
        match span.as_micros() as u64 {
            0 => Self::ZERO,
            micros => Self(bytes.saturating_mul(8_000_000) / micros),
        }
    }

    /// Bits per second.
    pub const fn as_bps(self) -> u64 {
        self.0
    }

    /// This rate times `factor`; negative factors count as zero.
    pub fn scale(self, factor: f64) -> Self {
        Self((self.0 as f64 * factor.max(0.0)) as u64)
    }

    /// How long `bytes` take at this rate; `Duration::MAX` at rate zero.
    pub fn time_for(self, bytes: u64) -> Duration {
        match self.0 {
            0 => Duration::MAX,
            bps => Duration::from_micros(bytes.saturating_mul(8_000_000) / bps),
        }
    }

    /// The difference, not below zero.
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl std::ops::Add for Bitrate {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl std::iter::Sum for Bitrate {
    fn sum<I: Iterator<Item = Self>>(rates: I) -> Self {
        rates.fold(Self::ZERO, |sum, rate| sum + rate)
    }
}

impl fmt::Debug for Bitrate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} kbit/s", self.0 / 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_time_are_inverse() {
        let rate = Bitrate::of(125_000, Duration::from_secs(1));
        assert_eq!(rate, Bitrate::kbps(1000));
        assert_eq!(rate.time_for(125_000), Duration::from_secs(1));
        assert_eq!(Bitrate::ZERO.time_for(1), Duration::MAX);
        assert_eq!(Bitrate::of(1, Duration::ZERO), Bitrate::ZERO);
    }
}
