//! Stellwerk: a media-plane SFU daemon.
#![deny(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        reason = "a test starts its virtual time somewhere"
    )
)]

pub mod config;
pub mod daemon;
pub mod directory;
#[doc(hidden)]
pub mod fuzzing;
pub mod ids;
pub mod media;
pub mod metrics;
pub mod signal;
pub mod units;
pub mod worker;
