//! Whose rate control is tried.

use super::scenario::Scenario;

/// Who sends to the viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The production shard. The targets are its own.
    Shard,
    /// A peer of str0m as it is, see [`stock`](super::stock).
    Stock,
    /// The same without padding up to the next layer.
    Unpadded,
}

impl Subject {
    /// Those that can stand beside the shard.
    pub const OTHERS: [Self; 2] = [Self::Stock, Self::Unpadded];

    /// Its name on the command line and in front of its rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shard => "shard",
            Self::Stock => "stock",
            Self::Unpadded => "unpadded",
        }
    }

    /// What it is.
    pub fn what(self) -> &'static str {
        match self {
            Self::Shard => "the production shard",
            Self::Stock => "stock str0m",
            Self::Unpadded => "stock str0m without padding",
        }
    }

    /// Whether it can be tried on this network.
    pub fn fits(self, scenario: &Scenario) -> bool {
        match self {
            Self::Shard => true,
            Self::Stock | Self::Unpadded => scenario.pictures() == 1,
        }
    }
}
