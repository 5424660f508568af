//! Layers and rewrite together, fed at random; the receiver's view is checked (LK-70).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::source::{Kind, Network, Random, Source, Ticks};
use crate::media::codec::{Codec, Cut, Format, Frame, vp8};
use crate::media::layers::{Decision, Layers, Target};
use crate::media::packet::{Layer, Packet};
use crate::media::rewrite::{Alignment, Rewrite, Stamp};

const FRAMES: u64 = 900;

/// A packet as the receiver and the all-knowing test see it.
#[derive(Clone)]
struct Seen {
    packet: Packet,
    descriptor: vp8::Descriptor,
    stamp: Stamp,
    /// Counts the switches.
    part: u32,
}

struct Run {
    layers: Layers,
    rewrite: Rewrite,
    bases: [u32; 3],
    /// By outgoing number.
    seen: BTreeMap<u64, Seen>,
    /// Source packets that were not there when a later one came.
    missing: [BTreeSet<u64>; 3],
    newest: [Option<u64>; 3],
    part: u32,
}

impl Run {
    fn new(random: &mut Random, bases: [u32; 3]) -> Self {
        let first = random.below(1 << 16) as u16;
        Self {
            layers: Layers::new(),
            rewrite: Rewrite::video(first, random.below(1 << 32) as u32),
            bases,
            seen: BTreeMap::new(),
            missing: Default::default(),
            newest: [None; 3],
            part: 0,
        }
    }

    fn feed(&mut self, packet: &Packet, random: &mut Random) {
        let layer = usize::from(packet.layer.0);
        let newest = self.newest[layer].get_or_insert(packet.seq);
        self.missing[layer].extend(*newest + 1..packet.seq);
        *newest = packet.seq.max(*newest);
        let before = self.layers.current();
        let stamp = match self.layers.decide(packet) {
            Decision::Ignore => None,
            Decision::Skip => {
                self.rewrite.skip(packet);
                None
            }
            Decision::Forward => self.rewrite.forward(packet),
            Decision::Switch => {
                self.part += 1;
                let known = before.and_then(|old| {
                    let base = self.bases[usize::from(old.0)];
                    let at = packet.timestamp.wrapping_sub(self.bases[layer]);
                    self.rewrite.outgoing_timestamp(base.wrapping_add(at))
                });
                let known = known.filter(|_| random.percent(60));
                let alignment = known.map_or(Alignment::Elapsed, Alignment::Known);
                Some(self.rewrite.switch(packet, alignment))
            }
        };
        if let Some(stamp) = stamp {
            self.receive(packet, stamp);
        }
    }

    fn receive(&mut self, packet: &Packet, stamp: Stamp) {
        let sent = self.rewrite.sent(stamp.seq as u16).expect("just sent");
        assert_eq!((sent.layer, sent.source_seq), (packet.layer, packet.seq));
        assert_eq!(sent.stamp, stamp);
        let Some(source) = packet.vp8 else {
            return;
        };
        let mut payload = Vec::new();
        source.write(stamp.face.ids, &mut payload);
        payload.extend_from_slice(&packet.payload[source.length.into()..]);
        let descriptor = vp8::Descriptor::parse(&payload).expect("readable");
        let seen = Seen {
            packet: packet.clone(),
            descriptor,
            stamp,
            part: self.part,
        };
        let earlier = self.seen.insert(stamp.seq, seen);
        assert!(earlier.is_none(), "number {} sent twice", stamp.seq);
    }

    /// Source packets missing between two that were seen, where the first one's source counts.
    fn missing_between(&self, a: &Seen, b: &Seen) -> usize {
        let missing = &self.missing[usize::from(a.packet.layer.0)];
        let end = if a.part == b.part {
            b.packet.seq
        } else {
            u64::MAX
        };
        missing
            .range(a.packet.seq + 1..end.max(a.packet.seq + 1))
            .count()
    }

    fn check(&self) {
        let mut source_packets = BTreeSet::new();
        for seen in self.seen.values() {
            let once = source_packets.insert((seen.part, seen.packet.seq));
            assert!(once, "source packet {} sent twice", seen.packet.seq);
        }
        let frames: Vec<&Seen> = self.seen.values().collect();
        let mut tl0: Option<(u8, &Seen)> = None;
        for pair in frames.windows(2) {
            let [a, b] = pair else {
                unreachable!("windows of two")
            };
            let gap = (b.stamp.seq - a.stamp.seq - 1) as usize;
            let missing = self.missing_between(a, b);
            assert!(
                gap <= missing,
                "gap of {gap} with {missing} missing after {}",
                a.stamp.seq
            );
            let same = a.part == b.part && a.packet.timestamp == b.packet.timestamp;
            if same {
                assert_eq!(gap, missing, "losses inside a frame must show");
            }
            let ticks = b.stamp.timestamp.wrapping_sub(a.stamp.timestamp) as i32;
            assert_eq!(ticks == 0, same, "a timestamp per frame");
            assert!((0..900_000).contains(&ticks), "{ticks} ticks");
            let ids = [a, b].map(|it| it.descriptor.picture_id.expect("sources have ids").value());
            let ahead = usize::from(ids[1].wrapping_sub(ids[0]) & 0x7fff);
            if same {
                assert_eq!(ahead, 0);
            } else {
                assert!(
                    (1..=1 + missing).contains(&ahead),
                    "{ahead} pictures, {missing} missing"
                );
            }
            if b.packet
                .vp8
                .is_some_and(|vp8| vp8.start_of_frame && vp8.temporal == 0)
            {
                let number = b.descriptor.tl0.expect("sources have TL0");
                if let Some((last, at)) = tl0 {
                    let ahead = usize::from(number.wrapping_sub(last));
                    let missing = self.missing_between(at, b);
                    assert!(
                        (1..=1 + missing).contains(&ahead),
                        "TL0 {ahead}, {missing} missing"
                    );
                }
                tl0 = Some((number, b));
            }
        }
    }
}

/// Half a minute at random: targets change, key frames come when asked for or on their own.
fn run(seed: u64, network: Network) -> Run {
    let mut random = Random::seeded(seed);
    let start = Instant::now();
    let mut sources = [0, 1, 2].map(|layer| Source::random(layer, &mut random));
    let mut run = Run::new(
        &mut random,
        [0, 1, 2].map(|it: usize| sources[it].timestamp_base),
    );
    let mut since_key = [0; 3];
    let mut arriving: Vec<Packet> = Vec::new();
    for number in 1..FRAMES {
        let at = Ticks::of(start, number);
        if random.percent(4) {
            let target = Target {
                stream: Layer(random.below(3) as u8),
                cut: Cut {
                    spatial: u8::MAX,
                    temporal: random.below(3) as u8,
                },
            };
            run.layers
                .set_target((!random.percent(5)).then_some(target));
        }
        let wanted = run.layers.wanted_key_frame(at.instant);
        let mut sent = Vec::new();
        for source in &mut sources {
            let since = &mut since_key[usize::from(source.layer.0)];
            let asked = wanted == Some(source.layer) && random.percent(20);
            let key = number == 1 || asked || random.percent(1);
            *since = if key { 0 } else { *since + 1 };
            let kind = if key { Kind::Key } else { Kind::of(*since) };
            sent.extend(source.frame(at, kind, 1 + random.below(4)));
            if random.percent(5) {
                sent.push(source.padding(at));
                sent.push(source.padding(at));
            }
        }
        arriving.extend(network.carry(sent, &mut random));
        arriving.sort_by_key(|packet| packet.arrival);
        let now = at.instant + Duration::from_millis(33);
        let due = arriving.partition_point(|packet| packet.arrival < now);
        for packet in arriving.drain(..due) {
            run.feed(&packet, &mut random);
        }
    }
    run
}

#[test]
fn a_receiver_sees_one_stream_over_a_bad_network() {
    let mut forwarded = 0;
    for seed in 0..60 {
        let network = Network {
            loss: seed % 20,
            repaired: 70,
            duplicates: 3,
            jitter: 1 + seed % 9,
        };
        let run = run(seed, network);
        run.check();
        forwarded += run.seen.len();
    }
    assert!(forwarded > 60_000, "{forwarded} packets prove little");
}

/// Without losses there must be no gap at all, and every frame must find those it refers to.
#[test]
fn a_receiver_can_decode_each_frame_over_a_good_network() {
    for seed in 100..130 {
        let run = run(seed, Network::GOOD);
        run.check();
        let numbers: Vec<u64> = run.seen.keys().copied().collect();
        let whole = numbers.windows(2).all(|pair| pair[1] == pair[0] + 1);
        assert!(whole, "seed {seed}");
        assert!(run.part > 5, "seed {seed} switches {} times only", run.part);
        decode(&run);
    }
}

/// Each frame refers to the newest one of its own and all lower temporal layers, a synchronous one
/// to the base layer only. Source picture ids tell which were there.
fn decode(run: &Run) {
    let mut held: HashMap<u8, u32> = HashMap::new();
    for seen in run.seen.values() {
        let source = seen.packet.vp8.expect("only pictures are kept");
        if !source.start_of_frame {
            continue;
        }
        let cycle = 4 * 3000;
        let now = seen.packet.timestamp;
        if source.key_frame {
            held = HashMap::from([(0, now), (1, now), (2, now)]);
            continue;
        }
        let needed = match (source.temporal, source.layer_sync) {
            (0, _) | (_, true) => 0..=0,
            (temporal, false) => 0..=temporal,
        };
        for layer in needed {
            let reference = held.get(&layer).copied().expect("starts with a key frame");
            let age = now.wrapping_sub(reference);
            assert!(
                age <= cycle,
                "a frame of layer {} lacks {layer}",
                source.temporal
            );
        }
        held.insert(source.temporal, now);
    }
}

/// A publisher sends nonsense: numbers, times and descriptors jump. Numbers of the outgoing stream
/// must still be used once only and go on, and nothing may panic or run away.
#[test]
fn a_hostile_source_does_not_break_the_stream() {
    let mut random = Random::seeded(3);
    let start = Instant::now();
    let mut run = Run::new(&mut random, [0; 3]);
    run.layers.set_target(Some(Target {
        stream: Layer(2),
        cut: Cut {
            spatial: u8::MAX,
            temporal: 1,
        },
    }));
    let mut seqs = [70_000u64; 3];
    let mut numbers = BTreeSet::new();
    let (mut first, mut restarts) = (None, 0);
    for number in 0..200_000u64 {
        let layer = random.below(3) as usize;
        let reach = [2, 10, 600, 40_000][random.below(4) as usize];
        let jump = if random.percent(90) {
            1
        } else {
            random.below(2 * reach) as i64 - reach as i64
        };
        seqs[layer] = seqs[layer].saturating_add_signed(jump);
        let bits = 8 * random.below(5);
        let mut payload = random.below(1 << 48).to_be_bytes()[2..].to_vec();
        payload.truncate(random.below(7) as usize);
        let vp8 = vp8::Descriptor::parse(&payload);
        let packet = Packet {
            audio_level: None,
            layer: Layer(layer as u8),
            seq: seqs[layer],
            timestamp: random.below(1 << bits) as u32,
            marker: random.percent(50),
            arrival: start + Duration::from_millis(number),
            format: Format::Plain(Codec::Vp8),
            frame: vp8.as_ref().map_or(Frame::default(), Frame::from),
            vp8,
            dependency: None,
            payload: payload.into(),
        };
        let stamp = match run.layers.decide(&packet) {
            Decision::Ignore => continue,
            Decision::Skip => {
                run.rewrite.skip(&packet);
                continue;
            }
            Decision::Forward => run.rewrite.forward(&packet),
            Decision::Switch => {
                restarts += 1;
                let known = random.below(1 << 32) as u32;
                Some(run.rewrite.switch(&packet, Alignment::Known(known)))
            }
        };
        if let Some(stamp) = stamp {
            first.get_or_insert(stamp.seq);
            assert!(numbers.insert(stamp.seq), "number {} sent twice", stamp.seq);
            let sent = run
                .rewrite
                .sent(stamp.seq as u16)
                .map(|sent| (sent.source_seq, sent.stamp));
            assert_eq!(sent, Some((packet.seq, stamp)));
        }
    }
    assert!(
        restarts > 0 && numbers.len() > 10_000,
        "{restarts}, {}",
        numbers.len()
    );
    assert_eq!(numbers.first().copied(), first);
}
