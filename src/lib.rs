//! Stellwerk: a media server (SFU) that unmodified LiveKit clients join. This page is the map.
//!
//! ```text
//!    clients: WebSocket                                        clients: UDP
//!          |                                                     ^     |
//!  +-------v--------+                                  +---------+-----v----------+
//!  | signal         |          one room = one worker   | worker (a thread each)   |
//!  |  http  grant   |   +-----------+  Command, mail   |  udp: batches in and out |
//!  |  livekit       +-->| directory +----------------->|  the turn, the clock     |
//!  |  control       |   +-----------+                  | +----------------------+ |
//!  |  room_service  |<------------- Notice ------------+ | Shard (media), no IO | |
//!  +----------------+                                  | |  rooms, participants | |
//!                                                      | |                      | |
//!  +----------------+                                  | |  peer   |   leg      | |
//!  | metrics        |<---------- Report, 1/s ----------+ | str0m:  | ours, on   | |
//!  |  /metrics      |                                  | |  ICE    |  its keys: | |
//!  |  /livez /readyz|                                  | |  DTLS   |  uplink in | |
//!  +----------------+                                  | |  SCTP   |  egress out| |
//!                                                      | |         |  RTCP both | |
//!  config -> daemon: binds, starts, drains all this    | +----------------------+ |
//!                                                      +--------------------------+
//! ```
//!
//! A [`worker`] owns its [`media::Shard`] alone; between threads only whole messages travel. A room
//! that outgrows a worker has a part on each of several, which tell each other what their
//! participants need ([`media::relay`]).
//! The shard is a synchronous value; time, datagrams and commands go in, datagrams and notices
//! come out, so tests, benches and fuzzers drive the very code that runs in production. str0m runs
//! ICE, DTLS and SCTP of each connection, and negotiates; media is our own in both directions,
//! because one packet to fifty people must not be fifty trips through a whole WebRTC stack.
//!
//! Dependencies point one way, and `tests/tidy.rs` watches the imports:
//! `cli -> daemon -> {signal, metrics, worker} -> directory -> media -> {ids, units}`; signalling
//! and the directory know only [`media::message`] of media (and its limits), and `config` is read
//! by `daemon` and `signal`. Beside them [`sim`] drives the shard as the worker does, on a virtual
//! clock, [`lab`] measures there how pictures adapt, and [`load`] is many clients of any server. It
//! borrows from media, from `sim` what clients, unlike servers, read and write, and networks; and
//! how the kernel's drops are read.
//!
//! # The hot path
//!
//! One RTP packet, in the order of its steps. The files carry the same numbers.
//!
//! 1. `worker/udp.rs` reads a batch in one call; `worker/intake.rs` stamps it with one time.
//! 2. `media/shard.rs` asks `media/demux.rs` whose datagram it is; only addresses that passed an
//!    ICE check count.
//! 3. `media/uplink/` opens it, and asks for what is missing; `media/forwarding.rs` makes a
//!    `media/packet.rs` of it, whose frame a file of `media/codec/` reads; `media/payload_type.rs`
//!    says which.
//! 4. `media/track.rs` notes layer, rate and clock; `media/retransmit.rs` keeps it for NACKs.
//!    `media/burst.rs` keeps it until its frame is complete, and takes the frame to one subscriber
//!    after the other; `media/relay/passing.rs` hands it to other workers that have some.
//! 5. For every subscription `media/layers.rs` says whether it goes out, and `media/rewrite.rs`
//!    under which numbers (inside the payload: `media/codec/vp8.rs`; in the extension that
//!    describes AV1: `media/codec/dependency.rs`).
//! 6. `media/pacer.rs` lets it pass, or wait for its turn.
//!    `media/egress.rs` has `media/wire.rs` write header and extensions, `media/srtp/` seal in
//!    place, and `media/batch.rs` put datagrams of equal size into one run.
//! 7. `worker/udp.rs` hands each run to the kernel in one call.
//!
//! Feedback goes the other way: `media/srtp/opener.rs` opens it, `media/rtcp/` reads it, then
//!
//! - NACK: `media/rewrite.rs` knows what had that number, `media/retransmit.rs` has the packet;
//! - PLI: `media/keyframe.rs` merges and throttles, `media/peer.rs` asks the publisher;
//! - congestion feedback: `media/estimator/` turns it into a rate, and tries out more
//!   (`media/pacing.rs` sends the padding); `media/adapting.rs` has `media/allocator.rs` share it
//!   out, and step 5 follows.
//!
//! # The guessing game
//!
//! | what is seen | where to look |
//! |---|---|
//! | the wrong person gets in, or not the right one | `signal/grant.rs`, `signal/livekit/join.rs` |
//! | the same, for an older client | `signal/livekit/query.rs` |
//! | a Matrix user is not believed, a homeserver not found | `matrix/homeservers.rs` and below |
//! | an HTTP status, CORS, a connection cut early | `signal/http.rs`, `signal/livekit/mod.rs` |
//! | a message is missing or misread | `signal/livekit/wire.rs` (out), `request.rs` (in) |
//! | somebody is thrown out, is there twice, rooms that stay | `media/room.rs` |
//! | a broken session is not taken up, or a dead one stays | `media/resuming.rs` |
//! | a data message is lost, late or somebody else's | `media/data/` |
//! | a token that ended during a call | `signal/livekit/pass.rs` |
//! | an older client gets no offer, or too many | `media/downlink.rs`, `media/negotiation.rs` |
//! | the server API refuses a call | `signal/room_service.rs`, `signal/grant.rs` |
//! | somebody who was removed comes back | `signal/revocation.rs` |
//! | a program at the control socket is refused, or its participant | `signal/control/` |
//! | what such a call does to a room | `media/administration.rs`, `media/permitting.rs` |
//! | an event that never came, or in the wrong order | `signal/webhook.rs`, `media/room.rs` |
//! | the wrong codec, none, or one somebody can't read | `media/payload_type.rs`, `media/sdp.rs` |
//! | a publication never appears | `media/publishing.rs`, `media/sdp.rs` |
//! | the wrong face in a tile, or none | `media/section.rs`, `media/subscribing.rs` |
//! | media doesn't connect | `media/candidates.rs`, `media/demux.rs`, `media/peer.rs` |
//! | media doesn't follow a client to another network | `media/nomination.rs` |
//! | a wrong address is told, or none | `config/interfaces.rs`, `daemon/media.rs` |
//! | media is lost on a shared port only | `worker/flows.rs`, `worker/team.rs` |
//! | media over TCP doesn't connect, or stops | `worker/tcp.rs`, `worker/streams.rs` |
//! | a freeze when a tile is resized | `media/layers.rs` |
//! | numbers jump, a decoder complains | `media/rewrite.rs`, `media/codec/` |
//! | pictures too small, or flapping between sizes | `media/allocator.rs`, `media/estimator/` |
//! | a link that is used too little, or too much | `media/estimator/`, with `stellwerk lab` |
//! | key frames that come slowly, padding that nobody needs | `media/pacer.rs`, `media/pacing.rs` |
//! | sound with gaps on a link that loses packets | `media/redundancy.rs` |
//! | a video pauses, or doesn't return | `media/pausing.rs` |
//! | somebody's mute or name is seen late | `media/announcing.rs` |
//! | somebody gets the backup codec, or doesn't | `media/backup.rs`, `media/encoding.rs` |
//! | a figure of a track or leg that can't be right | `media/facts.rs` |
//! | freezes under loss | `media/retransmit.rs`, `media/egress.rs` |
//! | a speaker's frame that stays or never comes | `media/speakers.rs` |
//! | a layer the browser doesn't send, or never stops to | `media/dynacast.rs` |
//! | a connection called lost or poor that isn't | `media/quality.rs` |
//! | a track that only some people get | `media/restriction.rs`, `media/subscribing.rs` |
//! | what a publisher loses is not asked for, or its rate stays low | `media/uplink/` |
//! | too many or too few key frames | `media/keyframe.rs` |
//! | a fault that ended one stay | `media/containment.rs` |
//! | sound and picture drift apart | `media/ntp.rs` |
//! | a packet costs far more than the floor | `media/burst.rs`, `worker/mod.rs`, `load/floor.rs` |
//! | frames come late, or in pieces | `media/burst.rs` |
//! | delay or loss under load | `worker/mod.rs` (the bounds of a turn), `worker/udp.rs` |
//! | loss that no worker counts | `worker/drops.rs` |
//! | figures of `stellwerk load` that can't be right | `load/engine.rs`, `load/incoming.rs` |
//! | a room on the wrong worker, 503 | `directory.rs` |
//! | people of a large room don't see or hear each other | `media/relay/`, `worker/relay.rs` |
//! | a fault that needs loss, many people or luck | a story in `sim/tests/`, with a seed |
//! | a number that can't be right | `media/counters.rs`, `metrics/page.rs` |
//! | "address in use", a stop that takes long | `daemon.rs` |
//! | an option that is ignored or refused | `config/mod.rs`, `config/layer.rs` |
//!
//! # Glossary
//!
//! - **room**: who is in it hears of each other. Named by people; its *sid* names one incarnation.
//! - **participant**: one stay of somebody in a room. **identity**: who that is, unique in a room.
//! - **sid**: an id we give: `RM_` room, `PA_` participant, `TR_` track. Harmless in a log.
//! - **session**: one signalling connection of a participant, named by a [`ids::SessionKey`].
//! - **placement**: a session's hold on a room's entry in the [`directory`].
//! - **command**, **notice**: what signalling wants of a shard, and what a shard tells a session;
//!   the whole language is [`media::message`].
//! - **question**, **event**: what is asked of a room from outside, and what it tells of itself:
//!   [`media::message::administration`].
//! - **peer**: ICE, DTLS and data channels of a participant's connection: str0m.
//! - **uplink**: the receiving half, ours: streams, gaps, reports of one publisher.
//! - **downlink**: the second peer connection of older clients: we offer on it, and the leg sends.
//!   On the first one they only publish.
//! - **leg**: the sending half, ours: numbers, keys, batch, estimate of one receiver.
//! - **section**: a media section (`m=`) of the one SDP of a client; it carries one track or waits.
//! - **track**: what somebody publishes: a camera, a microphone, a screen or its sound.
//! - **stream**: one SSRC of a track. With simulcast there is one per layer.
//! - **layer**: a spatial layer, that is one of up to three sizes of a picture (`q`, `h`, `f`).
//! - **format**: a codec in the form that one payload type stands for.
//! - **frame**: what a packet shows of its picture, whatever the codec. **cut**: the highest layers
//!   inside a stream that a subscriber gets.
//! - **temporal layer**: frames that can be left out to lower the frame rate of a layer.
//! - **encoding**: a track in one codec. **backup**: the second encoding of a track, for those who
//!   can't read its first.
//! - **subscription**: one track on its way to one participant.
//! - **wish**: what a subscriber asks: of a track at all, and of the bandwidth.
//! - **token**, or [`signal::grant::Grant`]: what the holder of an API key allows a participant.
//! - **demand**: the best layer of a video that anybody wants; its publisher is told (dynacast).
//! - **allowance**: whom a publisher lets have which of its tracks.
//! - **hint**: what a link seems to pass on, by how it pulls packets apart that left together.
//!   **rehearsal**: more than is sent, tried out with padding. **rival**: somebody else's traffic.
//! - **scenario**, **trial**: a network over time, and a meeting on it, in the [`lab`].
//! - **grant** of the [`media::allocator`]: the layers that bandwidth allows a subscription now.
//! - **rewrite**: making one continuous stream out of changing layers. **stamp**: the numbers a
//!   packet leaves with.
//! - **ring**: the last packets of a stream, for all its subscribers. **budget**: how much of them
//!   one receiver may have again.
//! - **shard**: whole rooms, as a value. **worker**: the thread, sockets and clock of one shard.
//! - **part** of a room: what one shard has of it. **home**: the first. **branch**: a further one.
//!   **parcel**: what one part tells another. **remote**: a participant of another part.
//! - **turn**: one bounded piece of a worker's work, between two waits.
//! - **meeting**: a shard, its simulated clients and the network between them, on a virtual clock.
//! - **offence**: what must never happen to a received stream; a simulated client sees it.
//! - **dropped**: something discarded; every reason is a variant of [`media::counters::Dropped`].
//!
//! # What is not here
//!
//! TLS for signalling (a reverse proxy's work); TURN; recording; relays between nodes;
//! reloading of the configuration.
#![deny(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        reason = "a test starts its virtual time somewhere"
    )
)]

pub mod config;
pub mod daemon;
pub mod directory;
#[doc(hidden)]
pub mod fuzzing;
pub mod ids;
pub mod lab;
pub mod load;
pub mod matrix;
pub mod media;
pub mod metrics;
pub mod signal;
pub mod sim;
pub mod units;
pub mod worker;
