//! One participant's media: connection, what it sends, what it receives, and RTCP for both.

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
        sent.refused += flush(&self.transport, batch);
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
                    self.transport.receive(clock.now(), run.from, datagram);
                }
                _ => {}
            }
        }
    }

    /// Does what is due every now and then: ICE, reports, feedback.
    pub fn visit(&mut self, now: Instant, clock: &Clock, batch: &mut Batch) {
        self.transport.tick(now);
        let Some(media) = &mut self.media else { return };
        if let Some(publisher) = &mut media.publisher {
            publisher.report(now, clock, batch);
            flush(&self.transport, batch);
        }
        media.subscriber.forget(now);
        let (control, feedback) = (&mut media.control, &mut media.feedback);
        feedback.clear();
        media
            .subscriber
            .feedback(now, control.ssrc().get(), feedback);
        if !feedback.is_empty() && control.seal_rtcp(feedback, 0).is_ok() {
            self.transport.send(feedback, None);
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
fn flush(transport: &Transport, batch: &mut Batch) -> u64 {
    let mut refused = 0;
    while let Some((run, segment)) = batch.take() {
        if !transport.send(run, segment) {
            refused += run.len().div_ceil(segment.unwrap_or(run.len()).max(1)) as u64;
        }
    }
    batch.clear();
    refused
}
