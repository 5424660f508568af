//! Datagrams that nobody sane would send, many of them, during a call (hostile input).

use std::net::SocketAddr;

use super::call::{Call, Who};
use super::track::Medium;
use crate::media::demux::Class;
use crate::media::message::Notice;

const DATAGRAMS: usize = 20_000;
const PER_STEP: usize = 40;

/// Something like `original`, but never it.
fn mutated(original: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut datagram = original.to_vec();
    // What follows the integrity of STUN is not covered by it, and changes nothing.
    let end = match Class::of(original) {
        Some(Class::Stun) => original.len().saturating_sub(32).max(1),
        _ => original.len(),
    };
    match random.u8(..4) {
        0 => datagram.truncate(random.usize(..end)),
        1 => datagram = (0..random.usize(..1500)).map(|_| random.u8(..)).collect(),
        2 => {
            let at = random.usize(..end);
            datagram[at] ^= random.u8(1..);
        }
        _ => {
            let at = random.usize(..end);
            for byte in &mut datagram[at..end] {
                *byte = random.u8(..);
            }
            datagram[at] = !original[at];
        }
    }
    datagram
}

/// What is counted of datagrams that came: taken in or dropped.
fn counted(call: &Call) -> u64 {
    call.counters().packets_in + call.counters().dropped.iter().sum::<u64>()
}

fn seen(call: &Call, from: Who, to: Who) -> usize {
    let camera = call[from].published("camera").expect("it is published");
    let mut numbers: Vec<_> = call[to]
        .received_of(&camera)
        .iter()
        .map(|got| got.seq)
        .collect();
    numbers.sort_unstable();
    for pair in numbers.windows(2) {
        assert_eq!(
            pair[1],
            pair[0] + 1,
            "nothing is missing and nothing comes twice"
        );
    }
    numbers.len()
}

#[test]
fn garbage_disturbs_nobody_and_is_counted() {
    let mut call = Call::new();
    let [anna, bert] = ["anna", "bert"].map(|who| call.enter(who));
    for who in [anna, bert] {
        call.publish(who, Medium::camera("camera"));
    }
    call.run(1000);
    let before = seen(&call, anna, bert);
    let stranger = SocketAddr::from(([127, 0, 0, 1], 9));
    for number in 0..DATAGRAMS {
        if number % PER_STEP == 0 {
            call.step();
        }
        let kept = call.random.usize(..call.kept.len());
        let (sender, original) = call.kept[kept].clone();
        let garbage = mutated(&original, &mut call.random);
        let (known, from) = match call.random.u8(..3) {
            0 => (false, stranger),
            1 => (true, sender),
            _ => (true, [call[anna].address, call[bert].address][number % 2]),
        };
        let counted_before = counted(&call);
        call.inject(from, &garbage);
        let counts = counted(&call) - counted_before;
        // A STUN or DTLS datagram may also be taken for a repetition, which is no error.
        let media = matches!(Class::of(&garbage), None | Some(Class::Rtp | Class::Rtcp));
        assert!(counts == 1 || known && !media && counts == 0, "{counts}");
    }
    call.run(1000);
    assert_eq!(call.counters().peer_panics, 0);
    for (from, to) in [(anna, bert), (bert, anna)] {
        assert!(seen(&call, from, to) > before + 150, "the picture went on");
        let gone = |notice: &&Notice| matches!(notice, Notice::Left(_));
        assert_eq!(call[to].notices.iter().find(gone), None);
    }
}
