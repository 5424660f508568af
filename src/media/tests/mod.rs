//! Helpers and long tests of the media core.

mod administration;
mod backup;
mod burst;
pub mod call;
pub mod client;
pub mod cycles;
pub mod fault;
mod garbage;
mod leaves;
pub mod ledger;
mod notices;
mod offences;
mod paths;
mod restart;
mod resuming;
mod simulation;
pub mod source;
mod spread;
mod stays;
mod stories;
pub mod track;
