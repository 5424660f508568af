//! Stellwerk (the map follows with the parts).
#![deny(unsafe_code)]
#![warn(missing_docs)]

#[doc(hidden)]
pub mod fuzzing;
pub mod config;
pub mod daemon;
pub mod ids;
pub mod media;
pub mod signal;
pub mod directory;
pub mod ids;
pub mod media;
pub mod metrics;
pub mod units;
pub mod worker;
