//! The second peer connection of clients with two: on it the offers are ours, and only we send.
//!
//! Clients of the older signalling publish on one connection and receive on another. The first is
//! like the single one of newer clients, but for its sections, which all go up. Here is the other:
//! its peer, which knows of ICE, DTLS and the data channels alone, and its media sections, which
//! no client has to be asked for. What is sent in them is the participant's [`Leg`], as ever.
//!
//! ```text
//!            take                   release             offered             answered
//!   Free  ---------->  Carrying  ------------> Closing ---------->  Quiet  ---------->  Free
//! ```
//!
//! Nothing is sent in a section before an answer has come: what a client can't place yet is lost,
//! and a key frame with it.

use std::time::Instant;

use str0m::channel::{ChannelConfig, Reliability};

use super::TrackKey;
use super::codec::Codec;
use super::counters::Dropped;
use super::demux::{Pair, Place};
use super::egress::Leg;
use super::message::{Connection, Kind, Notice, ParticipantState};
use super::negotiation::Negotiation;
use super::offer::{self, Transport};
use super::participant::Participant;
use super::payload_type::Codecs;
use super::peer::{Peer, PeerDead};
use super::room::{PEER_FAILED, Room};
use super::sdp::{Flow, Offer};
use super::shard::Core;
use super::srtp::Opener;

/// The connection we offer on.
pub struct Downlink {
    /// ICE, DTLS and data channels.
    pub peer: Peer,
    /// Addresses that passed a check; see [`super::demux::PAIRS_MAX`].
    pub pairs: Vec<Pair>,
    /// The user name fragment by which the peer is found.
    pub ufrag: String,
    /// The peer's own deadline.
    pub deadline: Instant,
    /// Opens SRTCP of the other connection, where the client reports on what it publishes: the
    /// leg has the keys of this one.
    pub reports: Option<Opener>,
    /// Codecs of the other connection.
    pub published: Codecs,
    /// It is the one that makes the participant active, and on which the client hears data.
    pub primary: bool,
    negotiation: Negotiation,
    /// What every offer says of the connection.
    transport: Transport,
    /// Names the connection in its offers.
    session: u64,
    /// The application section of every offer is not counted. Bounded by the limit on media
    /// sections.
    sections: Vec<Section>,
}

/// One audio or video section.
struct Section {
    mid: String,
    kind: Kind,
    usage: Usage,
}

/// What a section is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Usage {
    /// The client knows that nothing is sent.
    Free,
    /// This track.
    Carrying(TrackKey),
    /// Nothing any more, but no offer has said so.
    Closing,
    /// An offer has said so and waits for its answer.
    Quiet,
}

/// Newer clients take tracks with the first offer; older ones once they are connected.
const PROTOCOL_WITHOUT_FAST_START: i32 = 7;

/// Newer clients connect the subscribing side first, if they may subscribe.
const PROTOCOL_PUBLISHER_FIRST: i32 = 2;

impl Downlink {
    /// A connection that has not been offered.
    pub fn new(core: &mut Core, now: Instant) -> Result<Self, PeerDead> {
        let mut peer = Peer::new(&core.crypto, &core.cert, &core.candidates, &[], now)?;
        let reliable = ChannelConfig {
            label: "_reliable".to_owned(),
            ..ChannelConfig::default()
        };
        let lossy = ChannelConfig {
            label: "_lossy".to_owned(),
            ordered: false,
            reliability: Reliability::MaxRetransmits { retransmits: 0 },
            ..ChannelConfig::default()
        };
        let transport = Transport::read(&peer.offer_channels([reliable, lossy])?);
        Ok(Self {
            ufrag: peer.local_ufrag(),
            peer,
            pairs: Vec::new(),
            deadline: now,
            reports: None,
            published: Codecs::default(),
            primary: false,
            // As an offerer LiveKit starts anywhere, so that ids of two sessions rarely meet.
            negotiation: Negotiation::new(core.rng.u32(0..256)),
            transport,
            session: core.rng.u64(..) >> 1,
            sections: Vec::new(),
        })
    }

    /// When this connection has to be looked at.
    fn next(&self) -> Instant {
        let due = self.negotiation.due();
        due.map_or(self.deadline, |due| due.min(self.deadline))
    }

    /// Whether the client has left an offer without an answer for too long.
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.negotiation.is_overdue(now)
    }

    /// Takes a section for `track`, a new one if none is free and there may be more.
    fn take(&mut self, kind: Kind, track: TrackKey, sections_max: usize) -> bool {
        let free = |section: &&mut Section| section.kind == kind && section.usage == Usage::Free;
        if let Some(section) = self.sections.iter_mut().find(free) {
            section.usage = Usage::Carrying(track);
            return true;
        }
        // One section is the data channels'.
        if self.sections.len() + 1 >= sections_max {
            return false;
        }
        let name = match kind {
            Kind::Audio => "audio",
            Kind::Video => "video",
        };
        self.sections.push(Section {
            // Longer than the mids str0m makes, and so none of them.
            mid: format!("{name}{}", self.sections.len()),
            kind,
            usage: Usage::Carrying(track),
        });
        true
    }

    /// `track` is no longer sent.
    pub fn release(&mut self, track: TrackKey) {
        for section in &mut self.sections {
            if section.usage == Usage::Carrying(track) {
                section.usage = Usage::Closing;
            }
        }
    }

    /// Whether an offer would help: `waiting` tracks have no section, or a section went quiet.
    fn has_news(&self, waiting: impl Iterator<Item = Kind>, sections_max: usize) -> bool {
        let is = |usage| self.sections.iter().any(|section| section.usage == usage);
        let room = self.sections.len() + 1 < sections_max;
        let mut waiting = waiting;
        is(Usage::Closing)
            || waiting.any(|kind| {
                let free = |s: &Section| s.kind == kind && s.usage == Usage::Free;
                room || self.sections.iter().any(free)
            })
    }

    /// Every section on which a track is sent.
    pub fn carrying(&self) -> impl Iterator<Item = (&str, TrackKey)> {
        self.sections
            .iter()
            .filter_map(|section| match section.usage {
                Usage::Carrying(track) => Some((section.mid.as_str(), track)),
                _ => None,
            })
    }

    /// The next offer and its id. Sections that went quiet say so in it.
    fn offer(&mut self, leg: &Leg, codecs: &[Codec], now: Instant) -> (u32, String) {
        let id = self.negotiation.offered(now);
        for section in &mut self.sections {
            if section.usage == Usage::Closing {
                section.usage = Usage::Quiet;
            }
        }
        let sections: Vec<_> = self
            .sections
            .iter()
            .map(|section| offer::Section {
                mid: &section.mid,
                kind: section.kind,
                sending: match section.usage {
                    Usage::Carrying(track) => leg.sending(track),
                    _ => None,
                },
            })
            .collect();
        (
            id,
            self.transport.offer(self.session, id, codecs, &sections),
        )
    }

    /// Takes the answer to the newest offer; the tracks the client is ready for.
    fn answered(&mut self, answer: &Offer<'_>, text: &str) -> Result<Vec<TrackKey>, PeerDead> {
        let shown = self.transport.application_of(text);
        self.peer.accept_answer(&shown)?;
        let ready = |mid: &str| {
            let mut sections = answer.sections.iter();
            sections.any(|section| section.mid == mid && section.flow == Flow::Down)
        };
        for section in &mut self.sections {
            if section.usage == Usage::Quiet {
                section.usage = Usage::Free;
            }
        }
        Ok(self
            .carrying()
            .filter(|(mid, _)| ready(mid))
            .map(|(_, track)| track)
            .collect())
    }
}

impl Participant {
    /// The peer of a connection. Who has only one is reached by it, whatever it is called.
    pub fn peer_of(&mut self, connection: Connection) -> &mut Peer {
        match (connection, &mut self.downlink) {
            (Connection::Subscriber, Some(downlink)) => &mut downlink.peer,
            _ => &mut self.peer,
        }
    }

    /// The pairs of addresses of a connection.
    pub fn pairs_of(&mut self, connection: Connection) -> &mut Vec<Pair> {
        match (connection, &mut self.downlink) {
            (Connection::Subscriber, Some(downlink)) => &mut downlink.pairs,
            _ => &mut self.pairs,
        }
    }

    /// The peer of a connection is to be woken then.
    pub fn set_deadline(&mut self, connection: Connection, deadline: Instant) {
        match (connection, &mut self.downlink) {
            (Connection::Subscriber, Some(downlink)) => downlink.deadline = deadline,
            _ => self.peer_deadline = deadline,
        }
    }

    /// The connection that makes the participant active.
    pub fn primary(&self) -> Connection {
        match &self.downlink {
            Some(downlink) if downlink.primary => Connection::Subscriber,
            _ => Connection::Publisher,
        }
    }

    /// The peer of that connection: it carries data messages to the client, who hears them on no
    /// other one.
    pub fn primary_peer(&mut self) -> &mut Peer {
        self.peer_of(self.primary())
    }

    /// The primary peer has something to send within this turn.
    pub fn wake_primary(&mut self, now: Instant) {
        self.set_deadline(self.primary(), now);
    }

    /// When this participant has to be looked at.
    pub fn next(&self) -> Instant {
        let own = self.peer_deadline.min(self.tick);
        let own = self.leg.due().map_or(own, |due| due.min(own));
        let downlink = self.downlink.as_ref().map(|downlink| downlink.next());
        downlink.map_or(own, |deadline| deadline.min(own))
    }

    /// Whether what we send goes over this connection.
    pub fn sends_on(&self, connection: Connection) -> bool {
        self.downlink.is_none() || connection == Connection::Subscriber
    }

    /// The codecs of the connection on which the client publishes.
    pub fn codecs(&mut self) -> &mut Codecs {
        match &mut self.downlink {
            Some(downlink) => &mut downlink.published,
            None => &mut self.leg.codecs,
        }
    }

    /// Opens what a client reports on a connection.
    pub fn open_rtcp(
        &mut self,
        connection: Connection,
        datagram: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Dropped> {
        match &mut self.downlink {
            Some(downlink) if connection == Connection::Publisher => {
                let opener = downlink.reports.as_mut().ok_or(Dropped::NotConnected)?;
                let opened = opener.open_rtcp(datagram, out);
                opened.map_err(|_| Dropped::RtcpInvalid)
            }
            _ => self.leg.open_rtcp(datagram, out),
        }
    }

    /// Every track that has a media section.
    pub fn carried(&self) -> Vec<TrackKey> {
        let downlink = self.downlink.iter();
        let down = downlink.flat_map(|downlink| downlink.carrying());
        let all = self.sections.carrying().chain(down);
        all.map(|(_, track)| track).collect()
    }

    fn takes_tracks(&self) -> bool {
        self.client.protocol > PROTOCOL_WITHOUT_FAST_START || self.state >= ParticipantState::Active
    }
}

impl Room {
    /// Gives a newcomer with two connections the second one.
    pub fn add_downlink(&mut self, core: &mut Core, slot: u32, downlink: Downlink, now: Instant) {
        let place = self.place(slot, Connection::Subscriber);
        let participant = &mut self.participants[slot as usize];
        core.demux.name(downlink.ufrag.clone(), place);
        let downlink = participant.downlink.insert(Box::new(downlink));
        downlink.primary = participant.client.protocol > PROTOCOL_PUBLISHER_FIRST
            && participant.permissions.subscribe;
        if downlink.primary {
            // Also without a track: the participant becomes active by it.
            downlink.negotiation.want(now);
        }
    }

    /// Which peer of the shard that is.
    pub fn place(&self, slot: u32, connection: Connection) -> Place {
        Place {
            peer: self.peer_key(slot),
            connection,
        }
    }

    /// Makes an offer soon, if there is something to say by it.
    pub fn want_offer(&mut self, core: &mut Core, slot: u32, now: Instant) {
        let participant = &mut self.participants[slot as usize];
        let takes_tracks = participant.takes_tracks();
        let Some(downlink) = &mut participant.downlink else {
            return;
        };
        let waiting = participant.leg.waiting().map(|(_, kind)| kind);
        let waiting = waiting.filter(|_| takes_tracks);
        if downlink.has_news(waiting, core.config.limits.media_sections) {
            downlink.negotiation.want(now);
            self.arm(core, slot);
        }
    }

    /// A client with two connections has its signalling back. It restarts ICE on the one by its own
    /// offer, and on the other it waits for ours (LiveKit's clients don't ask).
    pub fn restart_downlink(&mut self, core: &mut Core, slot: u32, now: Instant) {
        let Some(downlink) = &mut self.participants[slot as usize].downlink else {
            return;
        };
        // Before the first answer there is nothing to restart, only to say again.
        if downlink.negotiation.restart(now) {
            match downlink.peer.offer_restart() {
                Ok(offer) => downlink.transport = Transport::read(&offer),
                Err(PeerDead) => return self.leave(core, slot, PEER_FAILED, now),
            }
        }
        self.arm(core, slot);
    }

    /// What is due on a downlink: its peer's timeout, our next offer.
    pub fn wake_downlink(&mut self, core: &mut Core, slot: u32, now: Instant) {
        let downlink = |room: &mut Self| {
            let participant = room.participants.get_mut(slot as usize)?;
            let downlink = participant.downlink.as_mut()?;
            Some((downlink.deadline, downlink.negotiation.due()))
        };
        let Some((deadline, due)) = downlink(self) else {
            return;
        };
        if due.is_some_and(|due| due <= now) {
            self.offer_downlink(core, slot, now);
        }
        if deadline <= now {
            let participant = &mut self.participants[slot as usize];
            if participant
                .peer_of(Connection::Subscriber)
                .timeout(now)
                .is_err()
            {
                return self.leave(core, slot, PEER_FAILED, now);
            }
            self.drain(core, slot, Connection::Subscriber, now);
        }
    }

    fn offer_downlink(&mut self, core: &mut Core, slot: u32, now: Instant) {
        let sections_max = core.config.limits.media_sections;
        let participant = &self.participants[slot as usize];
        let mut waiting = Vec::new();
        if participant.takes_tracks() {
            waiting.extend(participant.leg.waiting());
        }
        for (key, kind) in waiting {
            let Some(names) = self.names_of(key) else {
                continue;
            };
            let participant = &mut self.participants[slot as usize];
            if let Some(downlink) = &mut participant.downlink
                && downlink.take(kind, key, sections_max)
            {
                participant.leg.bind(key, kind, names);
                participant.leg.hold(key);
            }
        }
        let participant = &mut self.participants[slot as usize];
        let Some(downlink) = &mut participant.downlink else {
            return;
        };
        let codecs = &core.config.limits.codecs;
        let (id, sdp) = downlink.offer(&participant.leg, codecs, now);
        let named = |(mid, track): (&str, TrackKey)| {
            (
                mid.to_owned(),
                self.tracks[track.0 as usize].info.sid.clone(),
            )
        };
        let mid_to_track = downlink.carrying().map(named).collect();
        core.notify(
            participant.session,
            Notice::Offer {
                id,
                sdp,
                mid_to_track,
            },
        );
    }

    /// The client answers our offer. An answer to another one is ignored; one that can't be used
    /// ends this participant's stay.
    pub fn downlink_answered(
        &mut self,
        core: &mut Core,
        slot: u32,
        (id, text): (u32, &str),
        now: Instant,
    ) {
        let participant = &mut self.participants[slot as usize];
        let Some(downlink) = &mut participant.downlink else {
            return;
        };
        if !downlink.negotiation.answered(id, now) {
            return tracing::debug!(participant = ?participant.sid, "answer to no offer");
        }
        let limits = &core.config.limits;
        let answer = Offer::parse(text, limits.sdp_bytes, limits.media_sections);
        let ready = answer
            .map_err(|_| PeerDead)
            .and_then(|answer| downlink.answered(&answer, text));
        let Ok(ready) = ready else {
            tracing::debug!(participant = ?participant.sid, "unusable answer");
            return self.leave(core, slot, PEER_FAILED, now);
        };
        let ufrag = downlink.peer.local_ufrag();
        let old = std::mem::replace(&mut downlink.ufrag, ufrag.clone());
        participant.leg.codecs.read(text);
        for track in &ready {
            participant.leg.open(*track);
        }
        if old != ufrag {
            core.demux.unname(&old);
            core.demux
                .name(ufrag, self.place(slot, Connection::Subscriber));
        }
        for track in ready {
            if self.settle(core, slot, track, now) {
                self.tell_publisher(core, slot, track);
            }
        }
        // Something may have changed since, and key frames are needed without a wait.
        self.want_offer(core, slot, now);
        self.adapt(core, slot, now);
        self.drain(core, slot, Connection::Subscriber, now);
        self.arm(core, slot);
    }
}
