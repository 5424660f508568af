//! Matrix as this daemon needs it: who vouches for whom, and what participants are called.
//!
//! ```text
//! signal/matrix: who holds this token?  a call, please
//!       |                                   |
//!       v                                   v
//! homeservers -- configured? --yes--> fetch::Pool ---------------> its address, http or https
//!       |                                                          (trust: whose certificates)
//!       +-- federation? --> bulkhead --> discovery --> names: DNS
//!                                            |            cache: what servers said
//!                                            v
//!                       address: public? -> fetch::Place -> fetch::Fetcher --> https only
//! ```
//!
//! Who asks for a token is nobody yet, and may name any server: so a stranger's server is only ever
//! reached by a `Place`, which is made of checked addresses; in bounded time, for a
//! bounded answer, in bounded numbers; and all that comes out is a user or the word that there is
//! none. What the configuration names is trusted with its address, with nothing else.
//!
//! Beside that: [`name`]s of users and calls, the [`registration`] that a homeserver knows us by,
//! and [`leaves`] that clients entrust to us. What is not here: routes and tokens (`signal`), rooms
//! and participants.

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
pub mod trust;

pub use stats::Stats;
