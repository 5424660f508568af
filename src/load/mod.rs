//! A load tester: many clients in one process, for people who size machines. It speaks LiveKit's
//! signalling, so it can load any server that does.
//!
//! ```text
//!   run --- a task each: signalling (WebSocket, SDP) --- joins, answers ---> engine (a thread)
//!    ^                                                                         |  participants
//!    +------ joined, connected, a second, the outcome <------------------------+   transport
//!    |                                                                             publisher
//!   report                                                                         subscriber
//! ```
//!
//! Every participant is a client of its own: one socket, one ICE agent and DTLS handshake, its own
//! keys, reports and feedback. What makes them cheap is that one thread serves all of them in
//! short turns (`engine.rs`), and that most packets are counted by their headers only
//! (`incoming.rs`): of an opened sample, payloads tell when they were sent (`stamp.rs`).
//!
//! It borrows from the media core: keys out of DTLS, SRTP, RTCP, runs of datagrams; from the
//! simulator what clients, unlike servers, read and write: headers, gaps, feedback; and networks.
//!
//! Some may have a bad network (`impairment.rs`): it is a piece of the simulator's between socket
//! and participant (`link.rs`). Only they ask for what is lost; of the others what is lost shows.
//!
//! Not here: repetition of what publishers lose, data channels, dynacast.

mod address;
mod clock;
mod engine;
mod figures;
mod floor;
mod groups;
mod histogram;
pub mod impairment;
mod incoming;
mod joins;
mod link;
mod networks;
mod outgoing;
pub mod pacing;
mod page;
mod participant;
mod picture;
pub mod plan;
mod process;
mod publisher;
mod ramp;
pub mod report;
mod run;
mod sdp;
mod signalling;
mod stamp;
mod subscriber;
mod tally;
mod transport;
mod udp;

pub use floor::run as run_floor;
pub use impairment::Impairment;
pub use pacing::Pacing;
pub use plan::{Plan, Preset, Shape};
pub use report::{Progress, Report};
pub use run::{Server, run};
