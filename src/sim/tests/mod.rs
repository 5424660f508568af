//! Stories of whole meetings, and the proof that every judge can find fault.

mod crowd;
mod faults;
mod large;
mod network;
mod pausing;
mod repeat;
mod sections;
mod stories;

use std::time::Duration;

use crate::sim::{Link, Medium, Meeting};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const NAMES: [&str; 12] = [
    "anna", "bert", "carl", "dora", "emil", "frieda", "gustav", "hanna", "ida", "jakob", "klara",
    "ludwig",
];

/// So many people with cameras and microphones, all over the same link.
fn crowd(seed: u64, people: usize, link: &Link) -> Meeting {
    let mut meeting = Meeting::seeded(seed);
    for name in &NAMES[..people] {
        meeting.enter(name, link.clone());
        meeting.publish(name, Medium::simulcast("camera"));
        meeting.publish(name, Medium::microphone("microphone"));
        meeting.run(millis(100));
    }
    meeting
}
