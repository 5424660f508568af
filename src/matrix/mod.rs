//! Matrix as this daemon needs it: who vouches for whom, and what participants are called.
//!
//! ```text
//! signal/matrix (HTTP face) -> homeservers (who is this?) -> discovery -> fetch -> the homeserver
//! ```
//!
//! Here is what goes out: questions to homeservers, the configured ones and, with federation,
//! those that Matrix's server discovery finds. What is not here: routes and tokens (`signal`),
//! rooms and participants.

mod address;
mod bulkhead;
mod cache;
mod discovery;
mod fetch;
pub mod homeservers;
pub mod leaves;
pub mod name;
mod names;
pub mod registration;
mod stats;
mod trust;

pub use stats::Stats;
