//! ICE and DTLS of one participant, by str0m, and its socket. str0m knows of no media: all SRTP is
//! ours, under the keys that its handshake exports.

use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};

use mio::{Registry, Token};
use str0m::config::{DtlsVersion, Fingerprint};
use str0m::ice::IceCreds;
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};

use super::link::{Held, Link};
use super::sdp::{Answer, CANDIDATES_MAX, Credentials};
use super::udp::{Inbox, Socket};
use crate::media::demux::Class;
use crate::media::dtls::{self, KeySlot, Keying};

/// One participant's connection.
pub struct Transport {
    rtc: Rtc,
    slot: KeySlot,
    socket: Option<Socket>,
    /// What is between it and the socket, if that is more than nothing.
    link: Option<Link>,
    candidates: Vec<SocketAddr>,
    /// Where DTLS goes, so where media goes.
    destination: Option<SocketAddr>,
    connected: bool,
    wake: Instant,
}

impl Transport {
    /// Not connected to anything.
    pub fn new(now: Instant) -> Self {
        let (mut rtc, slot) = dtls::capture(|| {
            Rtc::builder()
                .set_crypto_provider(dtls::provider())
                .set_dtls_version(DtlsVersion::Dtls12)
                .clear_codecs()
                .build(now)
        });
        rtc.direct_api().set_ice_controlling(true);
        Self {
            rtc,
            slot,
            socket: None,
            link: None,
            candidates: Vec::new(),
            destination: None,
            connected: false,
            wake: now,
        }
    }

    /// Connected to `destination` under keys that both sides have already.
    pub fn fixed(now: Instant, destination: SocketAddr, keys: Keying) -> io::Result<Self> {
        Ok(Self {
            socket: Some(Socket::toward(destination)?),
            destination: Some(destination),
            connected: true,
            slot: KeySlot::holding(keys),
            wake: now + NEVER,
            ..Self::new(now)
        })
    }

    /// Puts a bad network before the socket.
    pub fn impair(&mut self, link: Link) {
        self.link = Some(link);
    }

    /// The bad network, if there is one.
    pub fn link(&mut self) -> Option<&mut Link> {
        self.link.as_mut()
    }

    /// Hands to the kernel what has come through the bad network by now.
    pub fn pass_up(&mut self, now: Instant) {
        let (Some(link), Some(socket)) = (&mut self.link, &self.socket) else {
            return;
        };
        while let Some(Held { peer, bytes, .. }) = link.up.take(now) {
            // What the kernel doesn't take is lost, too.
            socket.send(peer, &bytes, None);
        }
    }

    /// What offers say of it.
    pub fn credentials(&mut self) -> Credentials {
        let api = self.rtc.direct_api();
        let IceCreds { ufrag, pass } = api.local_ice_credentials();
        Credentials {
            ufrag,
            password: pass,
            fingerprint: api.local_dtls_fingerprint().to_string(),
        }
    }

    /// Takes what an answer says of the server; whether it can be connected to.
    pub fn answered(&mut self, answer: &Answer) -> bool {
        let Ok(fingerprint) = Fingerprint::from_str(&answer.fingerprint) else {
            return false;
        };
        let mut api = self.rtc.direct_api();
        api.set_remote_ice_credentials(IceCreds {
            ufrag: answer.ufrag.clone(),
            pass: answer.password.clone(),
        });
        api.set_remote_fingerprint(fingerprint);
        api.start_dtls(answer.passive).is_ok()
    }

    /// Tries an address of the server, too. The first one decides by which family it is reached.
    pub fn candidate(&mut self, address: SocketAddr) -> io::Result<()> {
        let family = self.candidates.first().map(SocketAddr::is_ipv4);
        let other = family.is_some_and(|ipv4| ipv4 != address.is_ipv4());
        let known = self.candidates.contains(&address);
        if other || known || self.candidates.len() >= CANDIDATES_MAX {
            return Ok(());
        }
        let host = |address| {
            let candidate = Candidate::host(address, Protocol::Udp);
            candidate.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
        };
        let remote = host(address)?;
        if self.socket.is_none() {
            let socket = Socket::toward(address)?;
            self.rtc.add_local_candidate(host(socket.local())?);
            self.socket = Some(socket);
        }
        self.rtc.add_remote_candidate(remote);
        self.candidates.push(address);
        Ok(())
    }

    /// Whether there is a socket to listen to.
    pub fn has_socket(&self) -> bool {
        self.socket.is_some()
    }

    /// The address of that socket.
    pub fn local(&self) -> Option<SocketAddr> {
        self.socket.as_ref().map(Socket::local)
    }

    /// Has `registry` tell under `token` when something comes.
    pub fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        match &self.socket {
            Some(socket) => socket.register(registry, token),
            None => Ok(()),
        }
    }

    /// Takes what the kernel has into `inbox`. Whether there may be more.
    pub fn read(&self, inbox: &mut Inbox) -> bool {
        self.socket
            .as_ref()
            .is_some_and(|socket| inbox.receive(socket))
    }

    /// A datagram of ICE or DTLS.
    pub fn receive(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let Some(socket) = &self.socket else { return };
        let Ok(receive) = Receive::new(Protocol::Udp, from, socket.local(), datagram) else {
            return;
        };
        // What str0m doesn't expect it refuses; nothing comes of it.
        let _ = self.rtc.handle_input(Input::Receive(now, receive));
        self.drain(now);
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
        if now >= self.wake {
            let _ = self.rtc.handle_input(Input::Timeout(now));
            self.drain(now);
        }
    }

    /// The keys of the connection, once, as soon as it stands.
    pub fn keys(&mut self) -> Option<Keying> {
        match self.connected {
            true => self.slot.take(),
            false => None,
        }
    }

    /// Sends media: one datagram or a run of equal ones. Whether it left.
    pub fn send(&mut self, now: Instant, contents: &[u8], segment: Option<usize>) -> bool {
        let Some((socket, destination)) = self.socket.as_ref().zip(self.destination) else {
            return false;
        };
        let Some(link) = &mut self.link else {
            return socket.send(destination, contents, segment);
        };
        for datagram in contents.chunks(segment.unwrap_or(contents.len()).max(1)) {
            // Whether it arrives is nobody's business here.
            link.up.put(now, destination, datagram);
        }
        true
    }

    /// Whether the connection has ended.
    pub fn is_over(&self) -> bool {
        !self.rtc.is_alive()
    }

    fn drain(&mut self, now: Instant) {
        // Each turn takes something out that the last input has put in.
        while self.rtc.is_alive() {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.wake = at;
                    return;
                }
                Ok(Output::Transmit(transmit)) => {
                    if Class::of(&transmit.contents) == Some(Class::Dtls) {
                        self.destination = Some(transmit.destination);
                    }
                    // What is lost is sent again.
                    if let Some(link) = &mut self.link {
                        link.up.put(now, transmit.destination, &transmit.contents);
                    } else if let Some(socket) = &self.socket {
                        socket.send(transmit.destination, &transmit.contents, None);
                    }
                }
                Ok(Output::Event(Event::Connected)) => self.connected = true,
                Ok(Output::Event(_)) => {}
                Err(_) => self.rtc.disconnect(),
            }
        }
        self.wake += IDLE;
    }
}

/// Nothing is due on a connection that was not made.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// A connection that has ended is looked at so rarely.
const IDLE: Duration = Duration::from_secs(1);
