//! The laboratory: how well pictures adapt to networks, in figures that anyone can reproduce.
//!
//! ```text
//!   Scenario --> trial (one for each seed): --> Figures --> Verdict
//!   a network    a Meeting on a virtual clock,   what the    median and worst
//!   over time    the production shard in it      viewer got  beside the target
//! ```
//!
//! A trial is a [`Meeting`](crate::sim::Meeting) of a publisher and a viewer (some have more) whose
//! network does what the scenario says; everything but the handshake is production code. What the
//! viewer receives is kept and measured afterwards: pictures after a jitter buffer
//! ([`playout`]), sound after repair, delays, layers.
//!
//! Other rate controls can be tried on the same networks for comparison, see [`Subject`].
//!
//! Not here: real browsers (`tests/browser/beside.test.mjs` holds the two beside each other), real
//! networks.

pub mod figures;
mod page;
pub mod playout;
pub mod scenario;
pub mod stock;
pub mod subject;
mod table;
pub mod trial;
pub mod verdict;

pub use scenario::{SCENARIOS, Scenario};
pub use subject::Subject;
pub use verdict::{Report, run};
