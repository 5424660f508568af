//! What can be read of a payload without decoding it.
pub mod vp8;
