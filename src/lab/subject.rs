//! Whose rate control is tried.

use super::scenario::Scenario;

/// Who sends to the viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The production shard. The targets are its own.
    Shard,
    /// The production shard, and a viewer that says how much it can take (REMB) in place of what
    /// arrives: what receivers get where transport-wide feedback isn't used.
    Remb,
    /// A peer of str0m as it is, see [`stock`](super::stock).
    Stock,
    /// The same without padding up to the next layer.
    Unpadded,
}

impl Subject {
    /// Those that can stand beside the shard.
    pub const OTHERS: [Self; 3] = [Self::Remb, Self::Stock, Self::Unpadded];

    /// Its name on the command line and in front of its rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shard => "shard",
            Self::Remb => "remb",
            Self::Stock => "stock",
            Self::Unpadded => "unpadded",
        }
    }

    /// What it is.
    pub fn what(self) -> &'static str {
        match self {
            Self::Shard => "the production shard",
            Self::Remb => "a viewer that says its rate",
            Self::Stock => "stock str0m",
            Self::Unpadded => "stock str0m without padding",
        }
    }

    /// Whether it can be tried on this network.
    pub fn fits(self, scenario: &Scenario) -> bool {
        match self {
            Self::Shard | Self::Remb => true,
            Self::Stock | Self::Unpadded => scenario.pictures() == 1,
        }
    }
}
