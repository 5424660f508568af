//! The parts of the packet path and of signalling that need no room, each as something that can be
//! done again and again; and one packet on its way through a whole shard.
//!
//! All of it is the same in every run: no time is read, chance has seeds, and what maps are keyed
//! with by chance is warm.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use livekit_protocol as proto;
use prost::Message;
use proto::signal_request::Message as Asked;
use stellwerk::media::PeerKey;
use stellwerk::media::allocator::{self, Pausing, Priority, Rank, Wish};
use stellwerk::media::batch::Batch;
use stellwerk::media::codec::vp8::{Descriptor, PictureId};
use stellwerk::media::codec::{Codec, Cut, Format, Frame};
use stellwerk::media::demux::{Class, Demux, Pair, Place};
use stellwerk::media::estimator::rehearsal::Wants;
use stellwerk::media::estimator::{Bounds, Estimator};
use stellwerk::media::layers::{Decision, Layers, Target};
use stellwerk::media::message::{Connection, Kind, Notice};
use stellwerk::media::pacer::Pacer;
use stellwerk::media::packet::{Layer, Packet};
use stellwerk::media::rewrite::{Alignment, Rewrite};
use stellwerk::media::rtcp::{self, feedback};
use stellwerk::media::srtp::Suite;
use stellwerk::signal::livekit;
use stellwerk::sim::sdp::{self, Section, Usage};
use stellwerk::units::Bitrate;

use super::floor::{self, HEADER};
use super::room::{PACKETS, PAYLOAD, RATE_SMALL, Room};

/// A part.
pub struct Part {
    pub name: &'static str,
    /// What is done each time.
    pub unit: &'static str,
    /// Its instructions are the same on every machine. Sealing's are not: the library has code of
    /// its own for each kind of processor.
    pub counted: bool,
    /// Something to do again and again.
    pub make: fn() -> Box<dyn FnMut()>,
}

pub const PARTS: [Part; 11] = [
    part("rewrite", "a packet's numbers for one viewer", rewrite),
    part(
        "descriptor",
        "a VP8 descriptor read, and written for one viewer",
        descriptor,
    ),
    part(
        "layers",
        "one viewer's choice on a packet of three layers",
        layers,
    ),
    part("allocate", "bandwidth shared between 25 pictures", allocate),
    part(
        "adapt",
        "a packet of 9 pictures: estimate, pacing and sharing",
        adapt,
    ),
    part("demux", "whose datagram it is, of 1000", demux),
    part(
        "forward",
        "a packet of 83 bytes through the shard to 10 viewers",
        forward,
    ),
    part("offer", "an offer of six sections read", offer),
    part("answer", "its answer written", answer),
    Part {
        counted: false,
        ..part("seal AES-128-GCM", "a packet for one viewer of 50", || {
            seal(Suite::AeadAes128Gcm)
        })
    },
    Part {
        counted: false,
        ..part("seal AES-256-GCM", "a packet for one viewer of 50", || {
            seal(Suite::AeadAes256Gcm)
        })
    },
];

const fn part(name: &'static str, unit: &'static str, make: fn() -> Box<dyn FnMut()>) -> Part {
    Part {
        name,
        unit,
        counted: true,
        make,
    }
}

#[expect(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
fn start() -> Instant {
    Instant::now()
}

/// One layer of a camera, with three temporal layers.
struct Camera(Packet);

impl Camera {
    /// Before its first packet.
    fn new(layer: u8) -> Self {
        let mut payload = vec![0x5a; PAYLOAD];
        // X and S; I, L and T; a long picture id; TL0PICIDX; a key frame (RFC 7741 section 4.2).
        payload[..7].copy_from_slice(&[0x90, 0xe0, 0x80, 0, 0, 0, 0]);
        let vp8 = Descriptor::parse(&payload);
        let arrival = start();
        Self(Packet {
            audio_level: None,
            layer: Layer(layer),
            seq: 999,
            timestamp: 0,
            marker: true,
            arrival,
            payload: Arc::from(payload),
            format: Format::Plain(Codec::Vp8),
            frame: Frame::default(),
            vp8,
            dependency: None,
        })
    }

    fn next(&mut self) -> &Packet {
        let Self(packet) = self;
        packet.seq += 1;
        let (frame, place) = (packet.seq / PACKETS as u64, packet.seq % PACKETS as u64);
        let temporal = [0, 2, 1, 2][frame as usize % 4];
        packet.timestamp = frame as u32 * 3000;
        packet.marker = place == PACKETS as u64 - 1;
        packet.arrival += Duration::from_millis(8);
        let descriptor = packet.vp8.as_mut().expect("it could be read");
        descriptor.picture_id = Some(PictureId::Long(frame as u16 & 0x7fff));
        descriptor.tl0 = Some((frame / 4) as u8);
        descriptor.start_of_frame = place == 0;
        descriptor.key_frame = packet.seq == 1000;
        descriptor.temporal = temporal;
        descriptor.layer_sync = temporal > 0;
        packet.frame = Frame::from(&*descriptor);
        packet
    }
}

fn rewrite() -> Box<dyn FnMut()> {
    let (mut camera, mut stream) = (Camera::new(0), Rewrite::video(7, 7));
    stream.switch(camera.next(), Alignment::Elapsed);
    Box::new(move || {
        let stamp = stream.forward(camera.next());
        black_box(stamp.expect("packets come in order"));
    })
}

fn descriptor() -> Box<dyn FnMut()> {
    let (mut camera, mut out) = (Camera::new(0), Vec::with_capacity(16));
    let mut stream = Rewrite::video(7, 7);
    let ids = stream.switch(camera.next(), Alignment::Elapsed).face.ids;
    let payload = Arc::clone(&camera.0.payload);
    Box::new(move || {
        out.clear();
        let descriptor = Descriptor::parse(black_box(&payload));
        descriptor.expect("it can be read").write(ids, &mut out);
        black_box(&mut out);
    })
}

fn layers() -> Box<dyn FnMut()> {
    let (mut cameras, mut layers) = ([0, 1, 2].map(Camera::new), Layers::new());
    let cut = Cut {
        spatial: 0,
        temporal: 1,
    };
    let stream = Layer(1);
    layers.set_target(Some(Target { stream, cut }));
    let firsts = cameras.each_mut().map(|it| layers.decide(it.next()));
    assert_eq!(firsts[1], Decision::Switch);
    let mut turn = 0;
    Box::new(move || {
        turn = (turn + 1) % cameras.len();
        black_box(layers.decide(cameras[turn].next()));
    })
}

/// A camera's wish, as it is shared out.
fn camera() -> Wish {
    let rates = [150, 500, 1700].map(|rate| {
        let steps = [rate / 2, rate * 3 / 4, rate].map(Bitrate::kbps);
        [steps[0], steps[1], steps[2], Bitrate::ZERO]
    });
    Wish {
        rank: Rank::plain(Priority::CAMERA),
        is_screen: false,
        layer_max: Layer(2),
        temporal_max: 3,
        rates,
        current: None,
        pausing: Pausing::Never,
    }
}

fn allocate() -> Box<dyn FnMut()> {
    let (wishes, mut grants) = (vec![camera(); 25], Vec::new());
    Box::new(move || {
        let spent = allocator::allocate(Bitrate::kbps(12_000), &wishes, &mut grants);
        black_box(spent);
    })
}

/// What a packet to one viewer costs beside being written: 400 of them in a second, of which the
/// viewer tells each 40 ms, shared between nine pictures each 200 ms. Reading what it tells is in
/// it.
fn adapt() -> Box<dyn FnMut()> {
    const INTERVAL: Duration = Duration::from_micros(2500);
    const TOLD: u64 = 16;
    const BYTES: usize = 1100;
    let start = start();
    let at = move |packet: u64| start + INTERVAL * packet as u32;
    // Numbers come round after as many.
    let rounds = (1 << 16) / TOLD;
    let mut arrivals = feedback::Twcc::new(start);
    let told: Vec<_> = (0..rounds)
        .map(|round| {
            let numbers = round * TOLD..(round + 1) * TOLD;
            numbers.for_each(|it| arrivals.note(it as u16, at(it) + Duration::from_millis(20)));
            let mut bytes = Vec::new();
            arrivals.write(&mut bytes, 1, 2);
            bytes
        })
        .collect();
    let (wishes, mut grants) = (vec![camera(); 9], Vec::new());
    let mut estimator = Estimator::new(Bounds::default(), start);
    let (mut pacer, mut packet) = (Pacer::new(start), 0);
    Box::new(move || {
        if packet == rounds * TOLD {
            packet = 0;
            (estimator, pacer) = (Estimator::new(Bounds::default(), start), Pacer::new(start));
        }
        let now = at(packet);
        black_box(pacer.pass(now, BYTES));
        estimator.sent(packet, BYTES, now);
        packet += 1;
        if packet.is_multiple_of(TOLD) {
            let bytes = &told[(packet / TOLD - 1) as usize];
            let later = at(packet - 1) + Duration::from_millis(40);
            for item in rtcp::read(bytes).flatten() {
                if let rtcp::Item::Twcc(feedback) = item {
                    black_box(estimator.feedback(later, &feedback));
                }
            }
        }
        if packet.is_multiple_of(5 * TOLD) {
            estimator.tick(now, true);
            let budget = estimator.share(now).budget(estimator.estimate());
            let spent = allocator::allocate(budget, &wishes, &mut grants);
            let next = allocator::next(&wishes, &grants, spent).unwrap_or_default();
            let all = allocator::wanted(&wishes);
            estimator.want(Wants { next, all });
            pacer.set_rate(estimator.pace());
        }
    })
}

fn demux() -> Box<dyn FnMut()> {
    let local = SocketAddr::from(([10, 0, 0, 254], 7882));
    let pairs = (0..1000).map(|number| Pair {
        local,
        remote: SocketAddr::from(([10, 0, number as u8, 1], 20_000 + number)),
    });
    let (pairs, mut demux): (Vec<Pair>, _) = (pairs.collect(), Demux::new());
    for (number, pair) in (0..).zip(&pairs) {
        let place = Place {
            peer: PeerKey::numbered(number),
            connection: Connection::Publisher,
        };
        demux.bind(*pair, place, &mut Vec::new(), None);
    }
    let (datagram, mut turn) = ([0x90, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0);
    Box::new(move || {
        // Another one each time, as packets come.
        turn = (turn + 389) % pairs.len();
        let class = Class::of(black_box(&datagram));
        let place = demux.by_pair(pairs[turn]);
        black_box((class, place.expect("all are known")));
    })
}

/// Small packets, so that there is little in it of the cipher.
fn forward() -> Box<dyn FnMut()> {
    let mut room = Room::with_rate(10, 1, RATE_SMALL);
    Box::new(move || {
        let frames = room.frames();
        room.take(&frames, &mut |transmit| {
            black_box(transmit);
        });
    })
}

/// What clients offer first: three sections for sound, three for pictures.
fn first_offer() -> String {
    let section = |number: usize| Section {
        mid: number.to_string(),
        kind: if number < 3 { Kind::Audio } else { Kind::Video },
        usage: Usage::Receive,
    };
    let sections: Vec<Section> = (0..6).map(section).collect();
    sdp::offer(&sections)
}

fn offer() -> Box<dyn FnMut()> {
    let offer = proto::SessionDescription {
        r#type: "offer".to_owned(),
        sdp: first_offer(),
        id: 1,
        ..Default::default()
    };
    let message = Some(Asked::Offer(offer));
    let bytes = proto::SignalRequest { message }.encode_to_vec();
    Box::new(move || {
        let request = livekit::read(black_box(&bytes));
        black_box(request.expect("it can be read"));
    })
}

fn answer() -> Box<dyn FnMut()> {
    let answer = Notice::Answer {
        id: 1,
        sdp: first_offer(),
        mid_to_track: (0..6)
            .map(|mid| (mid.to_string(), "TR_abcdefghijkl".into()))
            .collect(),
    };
    Box::new(move || {
        let bytes = livekit::write(black_box(answer.clone()));
        black_box(bytes.expect("it is said to clients"));
    })
}

fn seal(suite: Suite) -> Box<dyn FnMut()> {
    let viewers = 0..50;
    let mut viewers: Vec<_> = viewers.map(|viewer| floor::stream(suite, viewer)).collect();
    let (mut batch, packet) = (Batch::default(), vec![0x5a; HEADER + PAYLOAD]);
    // One frame for one after the other.
    let (mut turn, mut seq) = (0, 0);
    Box::new(move || {
        floor::seal(&mut viewers[turn], &mut batch, &packet, seq);
        seq += 1;
        if seq % PACKETS as u64 == 0 {
            batch.take();
            batch.clear();
            turn = (turn + 1) % viewers.len();
        }
    })
}
