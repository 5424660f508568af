//! One stream that is received: what is missing, which layer it is, whether a picture could be
//! shown. All packets are counted by their headers; some of them are opened.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::stamp::Stamp;
use super::tally::Tally;
use crate::media::codec::vp8::Descriptor;
use crate::media::message::Kind;
use crate::media::ntp::Ntp;
use crate::media::rtcp::ReportBlock;
use crate::sim::gaps::Gaps;
use crate::sim::receiving::{Header, nearest};

/// One of so many packets is opened, once a picture is shown.
const SAMPLE: u64 = 16;

/// Before a key frame is asked for: the server asks by itself for who is new.
const PATIENCE: Duration = Duration::from_millis(300);

/// Between two requests for a key frame.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Numbers that a bad network took and that are yet to be passed by; more count at once.
const TAKEN_MAX: usize = 4096;

/// A stream.
#[derive(Debug)]
pub struct Incoming {
    ssrc: u32,
    kind: Kind,
    first_at: Instant,
    heard: Instant,
    /// The first number that counts.
    base: u64,
    newest: u64,
    /// Packets from `base` on.
    received: u64,
    /// Expected and received at the last report.
    reported: (u64, u64),
    missing: u64,
    /// The newest sample: layer, the sender's number, and the number here.
    sample: Option<(u8, u64, u64)>,
    layer: Option<u8>,
    picture: Picture,
    asked: Option<Instant>,
    sender_report: Option<(Ntp, Instant)>,
    /// What is missing, if that is asked for.
    gaps: Option<Gaps>,
    /// Packets from `base` on that came when they were asked for.
    repaired: u64,
    /// Packets from `base` on that a bad network took on purpose.
    inflicted: u64,
    /// Those of them that are ahead of what has come: in time, the network is.
    taken: VecDeque<u64>,
}

/// How many packets of a stream there were, and what became of them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Should have come.
    pub expected: u64,
    /// Of them, those that never came.
    pub lost: u64,
    /// Of them, those that came when they were asked for.
    pub repaired: u64,
    /// Of them, those that a bad network took on purpose, whether they came then or not.
    pub inflicted: u64,
}

impl Counts {
    /// Adds those of another stream.
    pub fn add(&mut self, other: Self) {
        self.expected += other.expected;
        self.lost += other.lost;
        self.repaired += other.repaired;
        self.inflicted += other.inflicted;
    }

    /// What has come to these since they were `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            expected: self.expected.saturating_sub(before.expected),
            lost: self.lost.saturating_sub(before.lost),
            repaired: self.repaired.saturating_sub(before.repaired),
            inflicted: self.inflicted.saturating_sub(before.inflicted),
        }
    }

    /// Packets that were missing at first and that no bad network took.
    pub fn beyond(self) -> u64 {
        (self.lost + self.repaired).saturating_sub(self.inflicted)
    }
}

/// What a decoder would show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Picture {
    /// Nothing, or a broken one: it needs a key frame.
    None,
    /// A key frame with this timestamp has begun.
    Begun(u32),
    /// It goes on.
    Shown,
}

impl Incoming {
    /// Its first packet came.
    pub fn new(kind: Kind, header: &Header, now: Instant) -> Self {
        let first = header.seq.into();
        Self {
            ssrc: header.ssrc,
            kind,
            first_at: now,
            heard: now,
            base: first,
            newest: first,
            received: 0,
            reported: (0, 0),
            missing: 0,
            sample: None,
            layer: None,
            picture: Picture::None,
            asked: None,
            sender_report: None,
            gaps: None,
            repaired: 0,
            inflicted: 0,
            taken: VecDeque::new(),
        }
    }

    /// Asks for what is missing from now on, if it is a picture.
    pub fn ask_for_missing(&mut self) {
        self.gaps = self.is_video().then(Gaps::default);
    }

    /// Its SSRC.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// When a report on it was due and something had come since the one before.
    pub fn heard(&self) -> Instant {
        self.heard
    }

    /// Whether it is a picture.
    pub fn is_video(&self) -> bool {
        self.kind == Kind::Video
    }

    /// Counts a packet. Gives its extended number if it is to be opened.
    pub fn note(&mut self, header: &Header, now: Instant) -> Option<u64> {
        let ahead = header.seq.wrapping_sub(self.newest as u16) as i16;
        let index = self.newest.checked_add_signed(ahead.into())?;
        if let Some(gaps) = &mut self.gaps {
            gaps.note(now, self.newest, index);
        }
        self.newest = self.newest.max(index);
        self.pass_taken(0);
        if index >= self.base {
            self.received += 1;
        }
        let wanted = self.is_video() && (self.picture == Picture::None || self.layer.is_none());
        (wanted || self.received % SAMPLE == 1).then_some(index)
    }

    /// A bad network took a packet on purpose: it will be missing, and that is nobody's fault.
    pub fn note_taken(&mut self, header: &Header) {
        self.taken.push_back(nearest(header.seq, self.newest));
        self.pass_taken(TAKEN_MAX);
    }

    /// Counts numbers that a network took as soon as newer ones have come, or there are more than
    /// are kept.
    fn pass_taken(&mut self, kept: usize) {
        while let Some(first) = self.taken.front() {
            let over = kept > 0 && self.taken.len() > kept;
            if *first > self.newest && !over {
                return;
            }
            self.inflicted += u64::from(*first >= self.base);
            self.taken.pop_front();
        }
    }

    /// The number of a repeated packet of this stream.
    pub fn index(&self, seq: u16) -> u64 {
        nearest(seq, self.newest)
    }

    /// A packet came that was asked for.
    pub fn note_repaired(&mut self, index: u64) {
        let waited = self.gaps.as_mut().is_some_and(|gaps| gaps.fill(index));
        self.repaired += u64::from(waited && index >= self.base);
    }

    /// The numbers to ask for now.
    pub fn missing(&mut self, now: Instant) -> Vec<u16> {
        self.gaps.as_mut().map_or_else(Vec::new, |it| it.due(now))
    }

    /// The end of a frame came, maybe of one that is waited for. Whether that is shown now.
    pub fn note_marker(&mut self, header: &Header) -> bool {
        let shown = header.marker && self.picture == Picture::Begun(header.timestamp);
        if shown {
            self.picture = Picture::Shown;
        }
        shown
    }

    /// Looks into an opened picture: what its descriptor says.
    pub fn look(&mut self, header: &Header, descriptor: &Descriptor) {
        if descriptor.key_frame && self.picture == Picture::None {
            self.picture = Picture::Begun(header.timestamp);
        }
    }

    /// A packet with this number had that stamp.
    pub fn note_stamp(&mut self, index: u64, stamp: &Stamp, tally: &mut Tally) {
        self.layer = Some(stamp.layer);
        if let Some((layer, seq, before)) = self.sample
            && layer == stamp.layer
            && index > before
        {
            let passed = index - before;
            tally.left_out += stamp.seq.saturating_sub(seq).saturating_sub(passed);
        }
        self.sample = Some((stamp.layer, stamp.seq, index));
    }

    /// The layer that was seen since this was asked last.
    pub fn take_layer(&mut self) -> Option<u8> {
        self.layer.take()
    }

    /// Packets that should have come, and those of them that didn't at first.
    fn expected(&self) -> (u64, u64) {
        let expected = (self.newest + 1).saturating_sub(self.base);
        (expected, expected.saturating_sub(self.received))
    }

    /// What became of all packets.
    pub fn counts(&self) -> Counts {
        let (expected, missing) = self.expected();
        Counts {
            expected,
            lost: missing.saturating_sub(self.repaired),
            repaired: self.repaired,
            inflicted: self.inflicted,
        }
    }

    /// What counts begins after the newest packet.
    pub fn restart(&mut self) {
        self.base = self.newest + 1;
        self.received = 0;
        self.reported = (0, 0);
        self.missing = self.gaps.as_ref().map_or(0, Gaps::given_up);
        self.repaired = 0;
        self.inflicted = 0;
    }

    /// Whether to ask for a key frame; counts as asked then.
    pub fn asks_for_key_frame(&mut self, now: Instant) -> bool {
        // What is still asked for may come: only then a picture stays broken.
        let missing = match &self.gaps {
            Some(gaps) => gaps.given_up(),
            None => self.expected().1,
        };
        if self.is_video() && missing > self.missing {
            self.picture = Picture::None;
        }
        self.missing = missing;
        let since = |at: Instant| now.saturating_duration_since(at);
        let due = match self.asked {
            None => since(self.first_at) >= PATIENCE,
            Some(at) => since(at) >= ASK_AGAIN,
        };
        let asks = self.is_video() && self.picture == Picture::None && due;
        if asks {
            self.asked = Some(now);
        }
        asks
    }

    /// The server has reported on it.
    pub fn note_sender_report(&mut self, ntp: Ntp, now: Instant) {
        self.sender_report = Some((ntp, now));
    }

    /// What a receiver report says of it.
    pub fn report(&mut self, now: Instant) -> ReportBlock {
        let (expected, lost) = self.expected();
        let span = expected.saturating_sub(self.reported.0);
        let came = self.received.saturating_sub(self.reported.1);
        if came > 0 {
            self.heard = now;
        }
        self.reported = (expected, self.received);
        let fraction = span.saturating_sub(came) * 256 / span.max(1);
        let (last_report, delay) = self.sender_report.map_or((0, 0), |(ntp, at)| {
            let delay = now.saturating_duration_since(at).as_secs_f64() * 65536.0;
            (ntp.middle_32(), delay as u32)
        });
        ReportBlock {
            ssrc: self.ssrc.into(),
            fraction_lost: fraction.min(255) as u8,
            lost: lost.min(0x7f_ffff) as i32,
            seq_max: self.newest as u32,
            jitter: 0,
            last_report,
            delay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(seq: u16) -> Header {
        Header {
            marker: true,
            payload_type: 0,
            seq,
            timestamp: 9,
            ssrc: 7,
            twcc: None,
            playout: None,
            len: 12,
        }
    }

    fn stream(first: u16) -> Incoming {
        let now = Instant::now();
        Incoming::new(Kind::Video, &header(first), now)
    }

    #[test]
    fn what_is_missing_is_lost_and_what_is_late_is_not() {
        let mut stream = stream(65_533);
        for seq in [65_533, 65_534, 1, 65_535, 4] {
            stream.note(&header(seq), stream.first_at);
        }
        assert_eq!(stream.expected(), (8, 3));
        let now = stream.first_at;
        let block = stream.report(now);
        assert_eq!((block.lost, block.fraction_lost), (3, (3 * 256 / 8) as u8));
        assert_eq!(block.seq_max, 65_536 + 4);
        assert_eq!(stream.report(now).fraction_lost, 0);
        stream.restart();
        assert_eq!(stream.expected(), (0, 0));
        // From before the measurement.
        stream.note(&header(2), stream.first_at);
        assert_eq!(stream.expected(), (0, 0));
        stream.note(&header(6), stream.first_at);
        assert_eq!(stream.expected(), (2, 1));
    }

    #[test]
    fn every_packet_is_opened_until_a_picture_is_shown_and_then_a_few() {
        let mut stream = stream(1);
        let key = [
            0x90, 0xe0, 0x80, 1, 1, 0, 0x10, 2, 0, 0x9d, 1, 0x2a, 0, 5, 0xd0, 2,
        ];
        let descriptor = Descriptor::parse(&key).expect("a descriptor");
        assert_eq!(stream.note(&header(1), stream.first_at), Some(1));
        stream.look(&header(1), &descriptor);
        assert!(stream.note_marker(&header(1)));
        let stamp = Stamp {
            sent: Duration::ZERO,
            seq: 100,
            publisher: 1,
            layer: 2,
        };
        let mut tally = Tally::default();
        stream.note_stamp(1, &stamp, &mut tally);
        let opened = (2..=161).filter(|seq| stream.note(&header(*seq), stream.first_at).is_some());
        assert_eq!(opened.count(), 10);
        // Two packets of the sender more than there are numbers: left out on purpose.
        stream.note_stamp(161, &Stamp { seq: 262, ..stamp }, &mut tally);
        assert_eq!(tally.left_out, 2);
        assert_eq!(stream.take_layer(), Some(2));
        assert!(
            stream.note(&header(162), stream.first_at).is_some(),
            "to see the layer again"
        );
    }

    #[test]
    fn key_frames_are_asked_for_when_there_is_no_picture() {
        let mut stream = stream(1);
        let start = stream.first_at;
        let at = |millis| start + Duration::from_millis(millis);
        stream.note(&header(1), stream.first_at);
        assert!(!stream.asks_for_key_frame(at(0)));
        assert!(stream.asks_for_key_frame(at(300)));
        assert!(!stream.asks_for_key_frame(at(900)));
        stream.picture = Picture::Shown;
        assert!(!stream.asks_for_key_frame(at(2000)));
        stream.note(&header(3), stream.first_at);
        assert!(stream.asks_for_key_frame(at(2100)));
        assert!(stream.note(&header(4), stream.first_at).is_some());
    }

    #[test]
    fn what_is_asked_for_and_comes_is_repaired_and_not_lost() {
        let mut stream = stream(65_533);
        stream.ask_for_missing();
        let start = stream.first_at;
        let at = |millis| start + Duration::from_millis(millis);
        stream.note(&header(65_533), at(0));
        stream.note(&header(1), at(1));
        assert_eq!(stream.missing(at(2)), [65_534, 65_535, 0]);
        for seq in [65_535, 65_535, 65_533] {
            stream.note_repaired(stream.index(seq));
        }
        // Late, and by itself.
        stream.note(&header(65_534), at(50));
        let counts = |expected, lost, repaired, inflicted| Counts {
            expected,
            lost,
            repaired,
            inflicted,
        };
        assert_eq!(stream.counts(), counts(5, 1, 1, 0));
        assert_eq!(stream.missing(at(102)), [0]);
        // To the server it is lost on the way all the same (RFC 4588 section 4).
        assert_eq!(stream.report(at(200)).lost, 2);
        stream.picture = Picture::Shown;
        assert!(!stream.asks_for_key_frame(at(900)), "it may still come");
        assert!(stream.missing(at(1001)).is_empty());
        assert!(stream.asks_for_key_frame(at(1002)), "now it can't");
        stream.restart();
        assert_eq!(stream.counts(), Counts::default());
        stream.note_repaired(stream.index(0));
        assert_eq!(stream.counts(), Counts::default());
    }

    #[test]
    fn what_a_network_takes_counts_when_it_is_missed() {
        let mut stream = stream(1);
        let now = stream.first_at;
        stream.note(&header(1), now);
        for seq in [3, 4, 6] {
            stream.note_taken(&header(seq));
        }
        assert_eq!(stream.counts().inflicted, 0, "they would not be here yet");
        stream.note(&header(2), now);
        stream.note(&header(5), now);
        assert_eq!((stream.counts().inflicted, stream.counts().lost), (2, 2));
        // Taken before the measurement and missed in it.
        stream.restart();
        stream.note(&header(7), now);
        assert_eq!((stream.counts().inflicted, stream.counts().lost), (1, 1));
        for seq in 8..8 + TAKEN_MAX as u16 + 10 {
            stream.note_taken(&header(seq));
        }
        assert_eq!(stream.taken.len(), TAKEN_MAX);
    }
}
