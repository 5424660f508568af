//! The sans-IO media core.
pub mod message;
