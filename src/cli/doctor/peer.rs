//! One participant of the call that tries everything: signals by WebSocket as clients do, connects
//! by ICE and DTLS, and sends or hears sound. str0m is its WebRTC.
//!
//! There is a socket for each address that the daemon names, so that it shows which of them answer.
//! str0m is told of one of each family: it would try every pair, and give up before the last.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::StatusCode;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_request::Message as Ask;
use proto::signal_response::Message as Reply;
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::config::DtlsVersion;
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, Input, Output, Rtc};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role as SocketRole;

use super::proxy::websocket;
use super::visit::Visitor;

/// Addresses of the daemon that are tried, 20 in a second; further ones are not.
const ADDRESSES: usize = 16;

/// Datagrams that wait for us.
const DATAGRAMS: usize = 256;
const DATAGRAM_BYTES: usize = 2048;

/// One frame of Opus, and the time it takes: silence, as encoders write it.
const SILENCE: [u8; 3] = [0xf8, 0xff, 0xfe];
const FRAME_TIME: Duration = Duration::from_millis(20);
const FRAME_TICKS: u32 = 960;

/// Why there is no call.
#[derive(Debug)]
pub enum Trouble {
    /// The join was not answered, in words that follow "it".
    Join(String),
    /// It was refused.
    Refused(StatusCode),
    /// The connection for signals broke, or said what it shouldn't.
    Signal,
    /// The daemon's answer is none for WebRTC.
    Media,
}

/// What it is in the call for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Speaks,
    Hears,
}

/// An address of the daemon, and whether it has answered.
pub struct Tried {
    pub address: SocketAddr,
    /// None if this host has no way there.
    socket: Option<Arc<UdpSocket>>,
    /// What str0m takes for our end, whichever socket it is.
    local: SocketAddr,
    pub answered: bool,
}

impl Tried {
    /// Whether anything could be sent there.
    pub fn reachable(&self) -> bool {
        self.socket.is_some()
    }

    /// Whether nothing came back from there.
    pub fn is_silent(&self) -> bool {
        self.reachable() && !self.answered
    }
}

/// A participant.
pub struct Peer {
    pub connected: bool,
    /// When the first sound came, and from where.
    pub heard: Option<(Instant, SocketAddr)>,
    pub tried: Vec<Tried>,
    /// Addresses beyond [`ADDRESSES`].
    pub untried: HashSet<SocketAddr>,
    role: Role,
    socket: WebSocketStream<TokioIo<Upgraded>>,
    rtc: Rtc,
    sections: Vec<Mid>,
    offered: Option<SdpPendingOffer>,
    offers: u32,
    frames: u32,
    frame_due: Instant,
    wake: Instant,
    datagrams: mpsc::Receiver<(usize, Vec<u8>)>,
    mailbox: mpsc::Sender<(usize, Vec<u8>)>,
}

impl Peer {
    /// Joins by the address of an upgrade, and offers.
    pub async fn join(visitor: &Visitor, uri: hyper::Uri, role: Role) -> Result<Self, Trouble> {
        let answer = visitor.ask(websocket(uri)).await;
        let answer = answer.map_err(|why| Trouble::Join(why.to_string()))?;
        let upgraded = answer.upgraded.ok_or(Trouble::Refused(answer.status))?;
        let io = TokioIo::new(upgraded);
        let socket = WebSocketStream::from_raw_socket(io, SocketRole::Client, None).await;
        let now = Instant::now();
        let rtc = Rtc::builder()
            .set_crypto_provider(Arc::new(str0m::crypto::from_feature_flags()))
            .set_dtls_version(DtlsVersion::Dtls12)
            .set_rtp_mode(true)
            .clear_codecs()
            .enable_opus(true, false)
            .build(now.into_std());
        let (mailbox, datagrams) = mpsc::channel(DATAGRAMS);
        let mut peer = Self {
            connected: false,
            heard: None,
            tried: Vec::new(),
            untried: HashSet::new(),
            role,
            socket,
            rtc,
            sections: Vec::new(),
            offered: None,
            offers: 0,
            frames: 0,
            frame_due: now,
            wake: now,
            datagrams,
            mailbox,
        };
        if role == Role::Speaks {
            let track = proto::AddTrackRequest {
                cid: TRACK.to_owned(),
                r#type: proto::TrackType::Audio.into(),
                source: proto::TrackSource::Microphone.into(),
                ..Default::default()
            };
            peer.say(Ask::AddTrack(track)).await?;
        }
        peer.offer(1).await?;
        Ok(peer)
    }

    async fn say(&mut self, message: Ask) -> Result<(), Trouble> {
        let request = proto::SignalRequest {
            message: Some(message),
        };
        let frame = Message::Binary(request.encode_to_vec().into());
        self.socket.send(frame).await.map_err(|_| Trouble::Signal)
    }

    /// Goes.
    pub async fn leave(mut self) {
        let leave = proto::LeaveRequest {
            reason: proto::DisconnectReason::ClientInitiated.into(),
            ..Default::default()
        };
        // Whoever doesn't hear it sees the connection end.
        let _ = self.say(Ask::Leave(leave)).await;
        let _ = self.socket.close(None).await;
    }

    /// Offers, with so many sections more than before.
    async fn offer(&mut self, more: u32) -> Result<(), Trouble> {
        let mut sdp = self.rtc.sdp_api();
        let direction = match self.role {
            Role::Speaks => Direction::SendOnly,
            Role::Hears => Direction::RecvOnly,
        };
        // What was answered inactive is offered all the same; str0m offers only what changes.
        for mid in &self.sections {
            sdp.set_direction(*mid, Direction::Inactive);
            sdp.set_direction(*mid, direction);
        }
        for _ in 0..more {
            let stream = (self.role == Role::Speaks).then(|| TRACK.to_owned());
            let mid = sdp.add_media(MediaKind::Audio, direction, stream.clone(), stream, None);
            self.sections.push(mid);
        }
        let (offer, pending) = sdp.apply().ok_or(Trouble::Media)?;
        self.offered = Some(pending);
        self.offers += 1;
        self.say(Ask::Offer(proto::SessionDescription {
            r#type: "offer".to_owned(),
            sdp: offer.to_sdp_string(),
            id: self.offers,
            ..Default::default()
        }))
        .await
    }

    /// Does one thing that is due or has come.
    pub async fn step(&mut self) -> Result<(), Trouble> {
        self.drain()?;
        let speaks = self.role == Role::Speaks && self.connected;
        tokio::select! {
            message = self.socket.next() => match message {
                Some(Ok(Message::Binary(frame))) => self.signal(&frame).await?,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(Trouble::Signal),
                Some(Ok(_)) => {}
            },
            Some((index, datagram)) = self.datagrams.recv() => self.receive(index, &datagram),
            () = sleep_until(self.wake) => {
                let now = Instant::now().into_std();
                let _ = self.rtc.handle_input(Input::Timeout(now));
            }
            () = sleep_until(self.frame_due), if speaks => self.speak(),
        }
        self.drain()
    }

    async fn signal(&mut self, frame: &[u8]) -> Result<(), Trouble> {
        let response = proto::SignalResponse::decode(frame).map_err(|_| Trouble::Signal)?;
        match response.message {
            Some(Reply::Answer(answer)) => {
                let Some(pending) = self.offered.take() else {
                    return Ok(());
                };
                self.try_addresses(&answer.sdp).await;
                let answer = SdpAnswer::from_sdp_string(&answer.sdp);
                let answer = answer.map_err(|_| Trouble::Media)?;
                let taken = self.rtc.sdp_api().accept_answer(pending, answer);
                taken.map_err(|_| Trouble::Media)
            }
            Some(Reply::MediaSectionsRequirement(more)) if self.role == Role::Hears => {
                self.offer(more.num_audios.min(1)).await
            }
            Some(Reply::Leave(_)) => Err(Trouble::Signal),
            _ => Ok(()),
        }
    }

    /// Opens a socket to each address of an answer that is new.
    async fn try_addresses(&mut self, sdp: &str) {
        let lines = sdp
            .lines()
            .filter_map(|line| line.strip_prefix("a=candidate:"));
        for address in lines.filter_map(candidate) {
            let known = self.tried.iter().any(|it| it.address == address);
            if known {
                continue;
            }
            if self.tried.len() >= ADDRESSES {
                self.untried.insert(address);
                continue;
            }
            let opened = open(address).await.ok();
            let (socket, local) = match opened {
                Some((socket, own)) => (Some(socket), self.local(own)),
                None => (None, SocketAddr::from(([0, 0, 0, 0], 0))),
            };
            if let Some(socket) = &socket {
                let index = self.tried.len();
                tokio::spawn(listen(Arc::clone(socket), index, self.mailbox.clone()));
            }
            self.tried.push(Tried {
                address,
                socket,
                local,
                answered: false,
            });
        }
    }

    /// Our end as str0m knows it: the first of its family that was opened.
    fn local(&mut self, own: SocketAddr) -> SocketAddr {
        let mut opened = self.tried.iter().filter(|it| it.reachable());
        if let Some(first) = opened.find(|it| it.local.is_ipv4() == own.is_ipv4()) {
            return first.local;
        }
        if let Ok(candidate) = Candidate::host(own, Protocol::Udp) {
            self.rtc.add_local_candidate(candidate);
        }
        own
    }

    fn receive(&mut self, index: usize, datagram: &[u8]) {
        let Some(tried) = self.tried.get_mut(index) else {
            return;
        };
        tried.answered = true;
        let Ok(receive) = Receive::new(Protocol::Udp, tried.address, tried.local, datagram) else {
            return;
        };
        let now = Instant::now().into_std();
        let before = self.frames;
        let _ = self.rtc.handle_input(Input::Receive(now, receive));
        let _ = self.drain();
        if self.role == Role::Hears && self.frames > before && self.heard.is_none() {
            let from = self.tried.get(index).map(|it| it.address);
            self.heard = from.map(|from| (Instant::now(), from));
        }
    }

    fn speak(&mut self) {
        self.frame_due += FRAME_TIME;
        let opus = self.rtc.codec_config().iter().next().map(|it| it.pt());
        let (Some(opus), Some(mid)) = (opus, self.sections.first()) else {
            return;
        };
        let now = Instant::now().into_std();
        let time = self.frames.wrapping_mul(FRAME_TICKS);
        let write = RtpWrite::new(opus, u64::from(self.frames).into(), time, now, &SILENCE[..]);
        let mut api = self.rtc.direct_api();
        if let Some(stream) = api.stream_tx_by_mid(*mid, None) {
            stream.write_rtp(write);
        }
        self.frames += 1;
        let _ = self.rtc.handle_input(Input::Timeout(now));
    }

    /// Sends what str0m has to send, and notes when it wants to be woken.
    fn drain(&mut self) -> Result<(), Trouble> {
        loop {
            match self.rtc.poll_output().map_err(|_| Trouble::Media)? {
                Output::Timeout(at) => {
                    self.wake = Instant::from_std(at);
                    return Ok(());
                }
                Output::Transmit(transmit) => {
                    let pair = |it: &&Tried| {
                        it.local == transmit.source && it.address == transmit.destination
                    };
                    let socket = self.tried.iter().find(pair);
                    if let Some(socket) = socket.and_then(|it| it.socket.as_ref()) {
                        // What is lost is sent again; a closed port is seen by the silence.
                        let _ = socket.try_send(&transmit.contents);
                    }
                }
                Output::Event(Event::Connected) => {
                    self.connected = true;
                    self.frame_due = Instant::now();
                }
                Output::Event(Event::RtpPacket(_)) => self.frames += 1,
                Output::Event(_) => {}
            }
        }
    }
}

/// The client's id of the track.
const TRACK: &str = "sound";

/// The address in a candidate, if it is one for UDP.
fn candidate(text: &str) -> Option<SocketAddr> {
    let mut words = text.split(' ').skip(2);
    let udp = words.next()?.eq_ignore_ascii_case("udp");
    let mut words = words.skip(1);
    let ip: IpAddr = words.next()?.parse().ok()?;
    let port = words.next()?.parse().ok()?;
    udp.then(|| SocketAddr::new(ip, port))
}

/// A socket that only hears what comes from `address`, and our own address on the way there.
async fn open(address: SocketAddr) -> std::io::Result<(Arc<UdpSocket>, SocketAddr)> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(address).await?;
    let local = socket.local_addr()?;
    Ok((Arc::new(socket), local))
}

/// Passes datagrams on until nobody wants them any more.
async fn listen(socket: Arc<UdpSocket>, index: usize, to: mpsc::Sender<(usize, Vec<u8>)>) {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        match socket.recv(&mut buffer).await {
            Ok(len) => {
                if to.send((index, buffer[..len].to_vec())).await.is_err() {
                    return;
                }
            }
            // "Connection refused" by a port that is closed now and may be open in a moment.
            Err(_) if !to.is_closed() => tokio::time::sleep(FRAME_TIME).await,
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stand_in_candidates() {
        let read = |text| candidate(text).map(|address| address.to_string());
        let ipv6 = "2 1 UDP 2130706431 2001:db8::5 7882 typ host";
        assert_eq!(read(ipv6).as_deref(), Some("[2001:db8::5]:7882"));
        let host = "1 1 udp 2130706431 192.0.2.1 7882 typ host generation 0";
        assert_eq!(read(host).as_deref(), Some("192.0.2.1:7882"));
        assert_eq!(
            read("1 1 tcp 1 192.0.2.1 7881 typ host tcptype passive"),
            None
        );
        assert_eq!(read("1 1 udp 1 name.local 7881 typ host"), None);
        assert_eq!(read(""), None);
    }
}
