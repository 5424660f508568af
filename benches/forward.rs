//! One packet to 50 viewers: nanoseconds per copy, of the sealing alone and of the whole shard.
//!
//! Regime of the sealing: a VP8 packet of 1160 payload bytes, new for every round, goes to 50 legs
//! with keys of their own; each copy is renumbered, written behind header and extension, and
//! sealed in place, into a batch that is emptied after a frame of four packets. 50 legs, not one:
//! keys and windows must come from where they lie in memory when a room is large.
//!
//! Regime of the shard: one publisher and 50 viewers, all connected by ICE and DTLS in memory; the
//! publisher's SRTP datagrams of 1160 bytes of picture, sealed beforehand, go in, a frame of two
//! at a time, and everything that comes out is taken. So opening by str0m, ring, layer choice,
//! fan-out, sealing, notes for feedback and cutting into runs are in it; the kernel, timers and
//! the viewers' own feedback are not.
//!
//! Budget: 500 ns per copy with AES-GCM for the sealing: less than the cheapest send call costs
//! the kernel; 700 ns for the shard.
//!
//! `cargo bench --bench forward`; the median of the samples counts, the rest shows the noise.

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[path = "../src/media/tests/call.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod call;
#[path = "../src/media/tests/client.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod client;
#[path = "../src/media/tests/ledger.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod ledger;
#[path = "../src/media/tests/track.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod track;

use call::{Call, LOCAL, Who};
use stellwerk::media::batch::Batch;
use stellwerk::media::codec::vp8::Descriptor;
use stellwerk::media::codec::{Codec, Format, Frame};
use stellwerk::media::demux::Class;
use stellwerk::media::message::Kind;
use stellwerk::media::packet::{Layer, Packet};
use stellwerk::media::rewrite::{Alignment, Rewrite, Stamp};
use stellwerk::media::srtp::{MasterKey, OwnSsrc, Sealer, Stream, Suite};
use stellwerk::media::{Input, Output};
// The client of the tests calls the library `crate`.
use stellwerk::{ids, media};
use track::Medium;

const VIEWERS: usize = 50;
const PAYLOAD: usize = 1160;
const PACKETS_PER_FRAME: u64 = 4;
const FRAMES_PER_SAMPLE: u64 = 50;
const SAMPLES: usize = 41;

/// A viewer's end: numbering, keys, batch.
struct Leg {
    rewrite: Rewrite,
    seal: Stream,
    batch: Batch,
}

impl Leg {
    fn new(suite: Suite, viewer: usize) -> Self {
        let (key, salt) = match suite {
            Suite::AesCm128Sha1_80 => (16, 14),
            Suite::AeadAes128Gcm => (16, 12),
            Suite::AeadAes256Gcm => (32, 12),
        };
        let byte = viewer as u8;
        let master = MasterKey::new(suite, &vec![byte; key], &vec![byte; salt]);
        let mut sealer = Sealer::new(master.expect("lengths of the suite"));
        let ssrc = OwnSsrc::claim(1000 + viewer as u32);
        Self {
            rewrite: Rewrite::video(byte.into(), 0),
            seal: sealer.register(ssrc).expect("a new SSRC"),
            batch: Batch::default(),
        }
    }

    fn forward(&mut self, packet: &Packet) {
        let stamp = match packet.seq {
            0 => Some(self.rewrite.switch(packet, Alignment::Elapsed)),
            _ => self.rewrite.forward(packet),
        };
        let stamp = stamp.expect("packets come in order");
        let (buffer, start) = self.batch.begin().expect("batches are emptied");
        let header_len = write_header(buffer, packet, stamp, self.seal.ssrc());
        let descriptor = packet.vp8.as_ref().expect("a VP8 packet");
        descriptor.write(stamp.face.ids, buffer);
        buffer.extend_from_slice(&packet.payload[usize::from(descriptor.length)..]);
        let sealed = self.seal.seal_rtp(buffer, start, header_len, stamp.seq);
        sealed.expect("numbers are used once");
        self.batch.commit(start);
    }

    fn flush(&mut self) {
        while let Some(run) = self.batch.take() {
            black_box(run);
        }
        self.batch.clear();
    }
}

/// A header with one extension, as video gets it. Returns its length.
fn write_header(out: &mut Vec<u8>, packet: &Packet, stamp: Stamp, ssrc: OwnSsrc) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0x90, u8::from(packet.marker) << 7 | 96]);
    out.extend_from_slice(&(stamp.seq as u16).to_be_bytes());
    out.extend_from_slice(&stamp.timestamp.to_be_bytes());
    out.extend_from_slice(&ssrc.get().to_be_bytes());
    let [high, low] = (stamp.seq as u16).to_be_bytes();
    out.extend_from_slice(&[0xbe, 0xde, 0, 1, 0x31, high, low, 0]);
    out.len() - start
}

fn packet(seq: u64, arrival: Instant) -> Packet {
    let frame = seq / PACKETS_PER_FRAME;
    let starts_frame = seq.is_multiple_of(PACKETS_PER_FRAME);
    let mut payload = vec![0x5a; PAYLOAD];
    // X, and S at the start of a frame; I with a 15-bit picture id (RFC 7741 section 4.2).
    let id = (frame as u16) | 0x8000;
    payload[0] = 0x80 | u8::from(starts_frame) << 4;
    payload[1] = 0x80;
    payload[2..4].copy_from_slice(&id.to_be_bytes());
    let vp8 = Descriptor::parse(&payload);
    Packet {
        layer: Layer(0),
        seq,
        timestamp: (frame as u32).wrapping_mul(3000),
        marker: seq % PACKETS_PER_FRAME == PACKETS_PER_FRAME - 1,
        arrival,
        format: Format::Plain(Codec::Vp8),
        frame: vp8.as_ref().map_or(Frame::default(), Frame::from),
        vp8,
        dependency: None,
        payload: Arc::from(payload),
    }
}

/// One sample: time for every copy of some frames. Making the packets is not in it.
fn sample(legs: &mut [Leg], first: u64) -> Duration {
    let arrival = Instant::now();
    let count = FRAMES_PER_SAMPLE * PACKETS_PER_FRAME;
    let packets: Vec<Packet> = (first..first + count)
        .map(|seq| packet(seq, arrival))
        .collect();
    let start = Instant::now();
    for packet in &packets {
        for leg in legs.iter_mut() {
            leg.forward(packet);
            if packet.marker {
                leg.flush();
            }
        }
    }
    start.elapsed()
}

/// A publisher and its viewers, connected and with the picture running.
fn full_room() -> (Call, Who) {
    let mut call = Call::new();
    let publisher = call.enter("publisher");
    call.publish(publisher, Medium::camera_of("camera", PAYLOAD));
    for viewer in 0..VIEWERS {
        call.enter(&format!("viewer {viewer}"));
    }
    call.run(1000);
    (call, publisher)
}

/// One sample of the whole shard: time for all copies of some frames, per copy in nanoseconds.
fn shard_sample(call: &mut Call, publisher: Who) -> f64 {
    let mut at = call.now;
    let frames: Vec<(Instant, Vec<Vec<u8>>)> = (0..FRAMES_PER_SAMPLE)
        .map(|_| {
            at += Duration::from_millis(33);
            let client = &mut call[publisher];
            client.send_media(at, Kind::Video);
            let sealed = client.outbox.drain(..).map(|(_, datagram)| datagram);
            let media = sealed.filter(|datagram| Class::of(datagram) == Some(Class::Rtp));
            (at, media.collect())
        })
        .collect();
    let packets: usize = frames.iter().map(|(_, media)| media.len()).sum();
    let before = call.counters().packets_out;
    let remote = call[publisher].address;
    let start = Instant::now();
    for (now, datagrams) in &frames {
        for contents in datagrams {
            let input = Input::Datagram {
                local: LOCAL,
                remote,
                contents,
            };
            call.shard.handle(*now, input);
        }
        loop {
            match call.shard.poll() {
                Output::Timeout(_) => break,
                output => drop(black_box(output)),
            }
        }
    }
    let span = start.elapsed();
    call.now = at;
    let copies = call.counters().packets_out - before;
    assert_eq!(copies as usize, packets * VIEWERS, "all got everything");
    span.as_nanos() as f64 / copies as f64
}

fn print(label: &str, mut samples: Vec<f64>) {
    samples.sort_by(f64::total_cmp);
    let [least, median, most] = [0, SAMPLES / 2, SAMPLES - 1].map(|at| samples[at]);
    println!("{label:24} {median:6.0}  ({least:.0} to {most:.0})");
}

fn main() {
    println!("one packet to {VIEWERS} viewers, ns per copy: median (least to most)");
    for suite in Suite::ALL {
        let mut legs: Vec<Leg> = (0..VIEWERS).map(|viewer| Leg::new(suite, viewer)).collect();
        let count = FRAMES_PER_SAMPLE * PACKETS_PER_FRAME;
        let copies = count as f64 * VIEWERS as f64;
        let samples = (0..SAMPLES as u64)
            .map(|sample_number| sample(&mut legs, sample_number * count))
            .map(|span| span.as_nanos() as f64 / copies);
        print(suite.label(), samples.collect());
    }
    let (mut call, publisher) = full_room();
    let samples = (0..SAMPLES).map(|_| shard_sample(&mut call, publisher));
    print("shard, AES-256-GCM", samples.collect());
}
