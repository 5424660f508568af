//! Helpers and long tests of the media core.

mod leaves;
pub mod source;
