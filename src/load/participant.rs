//! One participant's media: connection, what it sends, what it receives, and RTCP for both.

use std::net::SocketAddr;
use std::time::Instant;

use super::clock::Clock;
use super::pacing::Pacing;
use super::plan::Part;
use super::publisher::{Mids, Publisher, Sent};
use super::subscriber::{Seen, Subscriber};
use super::tally::Tally;
use super::transport::Transport;
use super::udp::Run;
use crate::media::batch::Batch;
use crate::media::demux::Class;
use crate::media::rtcp::{self, Item};
use crate::media::srtp::{Opener, OwnSsrc, RtpOpener, Sealer, Stream, Suite};

/// A participant, as soon as it has an answer.
pub struct Participant {
    /// What it is there for.
    pub part: Part,
    /// ICE and DTLS.
    pub transport: Transport,
    /// The sections it sends with.
    pub mids: Option<Mids>,
    media: Option<Media>,
    seen: Seen,
    /// SSRCs of media, and of what repeats it, as far as answers have named them.
    pub repairs: Vec<(u32, u32)>,
}

/// What needs keys.
struct Media {
    suite: Suite,
    publisher: Option<Publisher>,
    subscriber: Subscriber,
    /// Seals feedback.
    control: Stream,
    rtcp: Opener,
    twcc: u16,
    opened: Vec<u8>,
    feedback: Vec<u8>,
}

/// What has become of a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Its media is connected.
    Connected,
    /// The first packet of others came.
    Heard,
    /// The first picture can be shown.
    Shown,
}

impl Participant {
    /// Not connected yet.
    pub fn new(part: Part, transport: Transport, mids: Option<Mids>) -> Self {
        Self {
            part,
            transport,
            mids,
            media: None,
            seen: Seen::default(),
            repairs: Vec::new(),
        }
    }

    /// A later answer has named all streams, and what repeats them.
    pub fn note_repairs(&mut self, pairs: Vec<(u32, u32)>) {
        self.repairs = pairs;
        self.ask_for_missing();
    }

    /// Asks for what is missing, if that is lost on purpose: otherwise losses are to be seen.
    fn ask_for_missing(&mut self) {
        if let (Some(media), Some(_)) = (&mut self.media, self.transport.link()) {
            media.subscriber.ask_for_missing(&self.repairs);
        }
    }

    /// How its media is encrypted.
    pub fn suite(&self) -> Option<Suite> {
        self.media.as_ref().map(|media| media.suite)
    }

    /// Takes the keys as soon as they are there. Whether they just came.
    pub fn connect(&mut self, now: Instant, pacing: Pacing) -> bool {
        let Some(keys) = self.transport.keys() else {
            return false;
        };
        let number = self.part.number as u32;
        let suite = keys.suite;
        let mut sealer = Sealer::new(keys.local);
        let control = sealer.register(OwnSsrc::claim((number + 1) << 8));
        let rtp = RtpOpener::new(&keys.remote);
        let publisher = self.mids.as_ref().map(|mids| {
            let random = fastrand::Rng::new();
            Publisher::new(number, pacing, mids, &mut sealer, now, random)
        });
        self.media = Some(Media {
            suite,
            publisher,
            subscriber: Subscriber::new(rtp, now),
            control: control.expect("a new sealer has room"),
            rtcp: Opener::new(keys.remote),
            twcc: 0,
            opened: Vec::new(),
            feedback: Vec::new(),
        });
        self.ask_for_missing();
        true
    }

    /// When it has something to send.
    pub fn due(&self) -> Option<Instant> {
        let publisher = self.media.as_ref()?.publisher.as_ref()?;
        Some(publisher.due())
    }

    /// Sends what is due.
    pub fn send(&mut self, now: Instant, clock: &Clock, batch: &mut Batch) -> Sent {
        let mut sent = Sent::default();
        let Some(media) = &mut self.media else {
            return sent;
        };
        let Some(publisher) = &mut media.publisher else {
            return sent;
        };
        // Each turn takes the next packet further into the future.
        while publisher.due() <= now {
            let written = publisher.write(now, clock, &mut media.twcc, batch);
            sent.packets += written.packets;
            sent.late += written.late;
        }
        sent.refused += flush(&mut self.transport, now, batch);
        sent
    }

    /// What came from one address. What has become of the participant by it is told to `step`.
    pub fn receive(
        &mut self,
        run: &Run<'_>,
        clock: &Clock,
        tally: &mut Tally,
        mut step: impl FnMut(Step),
    ) {
        let arrival = run
            .arrival
            .map_or_else(|| clock.now(), |unix| clock.instant(unix));
        for datagram in run.datagrams() {
            match self.transport.link() {
                None => self.take(arrival, run.from, datagram, (clock, tally), &mut step),
                Some(link) => {
                    let passes = link.down.put(arrival, run.from, datagram);
                    if let Some(media) = self.media.as_mut().filter(|_| !passes) {
                        media.subscriber.note_taken(datagram);
                    }
                }
            }
        }
    }

    /// A datagram that arrived then.
    fn take(
        &mut self,
        arrival: Instant,
        from: SocketAddr,
        datagram: &[u8],
        (clock, tally): (&Clock, &mut Tally),
        step: &mut impl FnMut(Step),
    ) {
        match (Class::of(datagram), &mut self.media) {
            (Some(Class::Rtp), Some(media)) => {
                let seen = media.subscriber.receive(arrival, clock, datagram, tally);
                if seen.media && !std::mem::replace(&mut self.seen.media, true) {
                    step(Step::Heard);
                }
                if seen.picture && !std::mem::replace(&mut self.seen.picture, true) {
                    step(Step::Shown);
                }
            }
            (Some(Class::Rtcp), Some(media)) => media.control(arrival, datagram),
            (Some(Class::Stun | Class::Dtls), _) => {
                self.transport.receive(clock.now(), from, datagram);
            }
            _ => {}
        }
    }

    /// Does what is due every now and then: ICE, reports, feedback.
    pub fn visit(&mut self, now: Instant, clock: &Clock, batch: &mut Batch) {
        self.transport.tick(now);
        let Some(media) = &mut self.media else { return };
        if let Some(publisher) = &mut media.publisher {
            publisher.report(now, clock, batch);
            flush(&mut self.transport, now, batch);
        }
        media.subscriber.forget(now);
        let (control, feedback) = (&mut media.control, &mut media.feedback);
        feedback.clear();
        media
            .subscriber
            .feedback(now, control.ssrc().get(), feedback);
        if !feedback.is_empty() && control.seal_rtcp(feedback, 0).is_ok() {
            self.transport.send(now, feedback, None);
        }
    }

    /// Takes what has come through its bad network by now, and asks for what has not.
    pub fn pass_on(
        &mut self,
        now: Instant,
        clock: &Clock,
        tally: &mut Tally,
        mut step: impl FnMut(Step),
    ) {
        self.transport.pass_up(now);
        while let Some(held) = self.transport.link().and_then(|link| link.down.take(now)) {
            self.take(held.at, held.peer, &held.bytes, (clock, tally), &mut step);
        }
        let Some(media) = &mut self.media else { return };
        let (control, feedback) = (&mut media.control, &mut media.feedback);
        feedback.clear();
        media.subscriber.ask(now, control.ssrc().get(), feedback);
        if !feedback.is_empty() && control.seal_rtcp(feedback, 0).is_ok() {
            self.transport.send(now, feedback, None);
        }
    }

    /// Its receiving half, once connected.
    pub fn subscriber(&mut self) -> Option<&mut Subscriber> {
        self.media.as_mut().map(|media| &mut media.subscriber)
    }
}

impl Media {
    /// RTCP of the server.
    fn control(&mut self, now: Instant, datagram: &[u8]) {
        if self.rtcp.open_rtcp(datagram, &mut self.opened).is_err() {
            return;
        }
        for item in rtcp::read(&self.opened).flatten() {
            match (item, &mut self.publisher) {
                (Item::Sender(info), _) => {
                    self.subscriber
                        .note_sender_report(*info.ssrc, info.ntp, now);
                }
                (Item::Pli(ssrc) | Item::Fir(ssrc), Some(publisher)) => {
                    publisher.make_key_frame(*ssrc);
                }
                (Item::Report(block), Some(publisher)) => publisher.note_known(*block.ssrc),
                _ => {}
            }
        }
    }
}

/// Sends all of `batch`. How many datagrams the kernel didn't take.
fn flush(transport: &mut Transport, now: Instant, batch: &mut Batch) -> u64 {
    let mut refused = 0;
    while let Some((run, segment)) = batch.take() {
        if !transport.send(now, run, segment) {
            refused += run.len().div_ceil(segment.unwrap_or(run.len()).max(1)) as u64;
        }
    }
    batch.clear();
    refused
}
