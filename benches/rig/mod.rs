//! What benches and the guards in `tests/` measure: the same parts and the same room for time,
//! instructions and allocations, so that their figures speak of the same work.

pub mod floor;
pub mod parts;
pub mod room;
