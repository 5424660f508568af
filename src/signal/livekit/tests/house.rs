//! A listener on loopback with a worker that only pretends, and clients to knock at it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::{BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_request::Message as Ask;
use proto::signal_response::Message as Reply;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::config::{Config, DEV_KEY, DEV_SECRET, Secret, Sources};
use crate::directory::events::Events;
use crate::directory::notices;
use crate::directory::{Directory, Limits, Mail, Seat};
use crate::ids::{Identity, RoomName, SessionKey};
use crate::media::message::administration::{ProfileRefusal, RoomRefusal};
use crate::media::message::*;
use crate::signal::grant::Grant;
use crate::signal::{Doors, Stats, serve, unix_now};

/// Nothing here takes longer, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct House {
    pub address: SocketAddr,
    pub stats: Arc<Stats>,
    pub directory: Arc<Directory>,
    /// What the worker was told, in order.
    pub heard: mpsc::UnboundedReceiver<String>,
    pub stop: watch::Sender<bool>,
    pub served: JoinHandle<()>,
    pub worker: JoinHandle<()>,
}

impl House {
    pub async fn new() -> Self {
        Self::with(|_| ()).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let sources = Sources {
            dev: true,
            ..Sources::default()
        };
        let mut config = Config::load(&sources).unwrap().config;
        change(&mut config);
        let (mailbox, mail) = mpsc::channel(64);
        let (tell, heard) = mpsc::unbounded_channel();
        let worker = tokio::spawn(pretend(mail, tell));
        let limits = Limits {
            participants: config.limits.participants,
            rooms: config.limits.rooms,
            participants_per_worker: config.rooms.participants_per_worker,
        };
        let directory = Arc::new(Directory::new(vec![mailbox], limits));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (stop, stopped) = watch::channel(false);
        let stats = Arc::new(Stats::default());
        let address = listener.local_addr().unwrap();
        let config = Arc::new(config);
        let serve = serve(
            Doors {
                http: vec![listener],
                control: None,
                matrix: None,
                events: Events::new(None).1,
            },
            config,
            directory.clone(),
            stats.clone(),
            stopped,
        );
        Self {
            address,
            stats,
            directory,
            heard,
            stop,
            served: tokio::spawn(serve),
            worker,
        }
    }

    /// The status line and headers, and the body, of a plain request.
    pub async fn get(&self, path: &str, headers: &str) -> (String, String) {
        self.request(&format!("GET {path} HTTP/1.1\r\n{headers}"))
            .await
    }

    /// Like `get`, with method and headers; host and end are added.
    pub async fn request(&self, head: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{head}Host: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    /// A client whose upgrade succeeded.
    pub async fn connect(&self, join_request: &str, token: &str) -> Client {
        let path = format!("/rtc/v1?access_token={token}&join_request={join_request}");
        self.try_connect(&path).await.unwrap()
    }

    /// The client, or the status of the refusal.
    pub async fn try_connect(&self, path: &str) -> Result<Client, u16> {
        use tokio_tungstenite::tungstenite::Error;
        match connect_async(format!("ws://{}{path}", self.address)).await {
            Ok((socket, _)) => Ok(Client(socket)),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// A client who has read its `JoinResponse`.
    pub async fn joined(&self) -> Client {
        let mut client = self.connect(&plain_join(), &token("anna")).await;
        assert!(matches!(client.read().await, Reply::Join(_)));
        assert!(matches!(client.read().await, Reply::RefreshToken(_)));
        client
    }

    pub async fn hears(&mut self) -> String {
        let heard = tokio::time::timeout(PATIENCE, self.heard.recv()).await;
        heard.expect("nothing was heard").unwrap()
    }
}

pub struct Client(pub WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    pub async fn say(&mut self, message: Ask) {
        let message = Some(message);
        let bytes = proto::SignalRequest { message }.encode_to_vec();
        self.0.send(Message::Binary(bytes.into())).await.unwrap();
    }

    /// The next message that is no ping.
    pub async fn next(&mut self) -> Option<Result<Message, String>> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.0.next()).await;
            match next.expect("nothing came") {
                Some(Ok(Message::Ping(_))) => {}
                next => return next.map(|message| message.map_err(|error| error.to_string())),
            }
        }
    }

    pub async fn read(&mut self) -> Reply {
        let Some(Ok(Message::Binary(bytes))) = self.next().await else {
            panic!("no binary message came");
        };
        proto::SignalResponse::decode(bytes)
            .unwrap()
            .message
            .unwrap()
    }

    /// The code of the close frame that comes next.
    pub async fn close_code(&mut self) -> u16 {
        match self.next().await {
            Some(Ok(Message::Close(Some(frame)))) => frame.code.into(),
            other => panic!("{other:?}"),
        }
    }
}

pub fn token(identity: &str) -> String {
    grant(identity, |_| ())
}

pub fn grant(identity: &str, change: impl FnOnce(&mut Grant)) -> String {
    let mut grant = Grant::new(identity.into());
    grant.room = Some("red".into());
    grant.room_join = true;
    change(&mut grant);
    let secret = Secret::new(DEV_SECRET).unwrap();
    grant.mint(DEV_KEY, &secret, unix_now(), Duration::from_secs(600))
}

pub fn join_request() -> proto::JoinRequest {
    proto::JoinRequest {
        client_info: Some(proto::ClientInfo {
            protocol: 18,
            ..Default::default()
        }),
        connection_settings: Some(proto::ConnectionSettings {
            auto_subscribe: true,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A join request as it goes into the URL.
pub fn wrap(request: &proto::JoinRequest, gzip: bool, padded: bool) -> String {
    use std::io::Write;
    let mut bytes = request.encode_to_vec();
    if gzip {
        let level = flate2::Compression::default();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
        encoder.write_all(&bytes).unwrap();
        bytes = encoder.finish().unwrap();
    }
    let wrapped = proto::WrappedJoinRequest {
        compression: i32::from(gzip),
        join_request: bytes,
    };
    let engine = if padded {
        BASE64_URL_SAFE
    } else {
        BASE64_URL_SAFE_NO_PAD
    };
    engine.encode(wrapped.encode_to_vec())
}

pub fn plain_join() -> String {
    wrap(&join_request(), true, true)
}

/// A worker without media. It refuses to create rooms it may not, and says yes to all else.
async fn pretend(mut mail: mpsc::Receiver<Mail>, heard: mpsc::UnboundedSender<String>) {
    let mut sessions: HashMap<SessionKey, (notices::Sender, Arc<Seat>)> = HashMap::new();
    let left = |reason, action| Notice::Left(Departure { reason, action });
    while let Some(mail) = mail.recv().await {
        let (session, notice) = match mail {
            Mail::Open {
                session,
                notices,
                seat,
            } => {
                sessions.insert(session, (notices, seat));
                continue;
            }
            Mail::Command(Command::Join(join)) => {
                let _ = heard.send("join".to_owned());
                let notice = match (join.room.as_str(), join.create_room) {
                    ("silent", _) => continue,
                    ("full", _) => Notice::Refused(Refusal::RoomFull),
                    (_, false) => Notice::Refused(Refusal::RoomMissing),
                    _ => Notice::Joined(Box::new(joined(&join))),
                };
                (join.session, notice)
            }
            Mail::Command(Command::Resume(resume)) => {
                let _ = heard.send("resume".to_owned());
                let notice = match resume.sid {
                    Some(sid) if sid == participant("", 0).sid => {
                        Notice::Resumed(Box::new(resumed(&resume.room, &resume.identity)))
                    }
                    _ => Notice::Refused(Refusal::StayUnknown),
                };
                (resume.session, notice)
            }
            Mail::Ask {
                question, reply, ..
            } => {
                let text = format!("{:?}", question.request);
                let verb = text.split(|c: char| !c.is_alphabetic()).next();
                let _ = heard.send(verb.unwrap_or_default().to_owned());
                let _ = reply.send(Err(RoomRefusal::ParticipantMissing));
                continue;
            }
            Mail::Command(Command::Ask(_)) => unreachable!("questions come with a way back"),
            Mail::Command(Command::SignalClosed(session, _)) => {
                let _ = heard.send("closed".to_owned());
                sessions.remove(&session);
                continue;
            }
            Mail::Command(Command::Shutdown) => {
                for (_, (notices, _)) in sessions.drain() {
                    let notice = left(LeaveReason::ServerShutdown, LeaveAction::Reconnect);
                    notices.try_send(notice).unwrap();
                }
                continue;
            }
            Mail::Command(Command::Request(session, request)) => {
                let text = format!("{request:?}");
                let verb = text.split(|c: char| !c.is_alphabetic()).next();
                let _ = heard.send(verb.unwrap_or_default().to_owned());
                let notice = match request {
                    Request::Offer { id, sdp } => Notice::Answer {
                        id,
                        sdp,
                        mid_to_track: vec![("3".to_owned(), "TR_VCabc".into())],
                    },
                    Request::AddTrack(announced) => Notice::TrackPublished {
                        cid: announced.cid.clone(),
                        track: Box::new(TrackInfo {
                            sid: "TR_VCabc".into(),
                            simulcast: announced.layers.len() > 1,
                            announced: *announced,
                        }),
                    },
                    Request::UpdateProfile {
                        request_id,
                        profile,
                    } => Notice::ProfileAnswer {
                        request_id,
                        profile,
                        result: Err(ProfileRefusal::NotAllowed),
                    },
                    Request::Mute { track, muted } => Notice::MuteRefused { track, muted },
                    // Stands for a room where a lot happens.
                    Request::Subscribe { .. } => {
                        let (notices, _) = sessions.remove(&session).unwrap();
                        let update = || Notice::Participant(participant("bert", 100_000).into());
                        while notices.try_send(update()).is_ok() {
                            tokio::task::yield_now().await;
                        }
                        let _ = heard.send("full".to_owned());
                        continue;
                    }
                    Request::Leave => left(LeaveReason::ClientInitiated, LeaveAction::Disconnect),
                    _ => continue,
                };
                (session, notice)
            }
        };
        let last = matches!(notice, Notice::Left(_) | Notice::Refused(_));
        if let Some((notices, _)) = sessions.get(&session) {
            // Whoever left may be gone before it is told.
            let _ = notices.try_send(notice);
        }
        if last {
            sessions.remove(&session);
        }
    }
}

fn joined(join: &Join) -> Joined {
    Joined {
        room: room_info(&join.room),
        participant: Arc::new(ParticipantInfo {
            identity: join.identity.clone(),
            permissions: join.permissions.clone(),
            metadata: join.metadata.clone(),
            attributes: join.attributes.clone(),
            ..participant("", 0)
        }),
        others: vec![participant("bert", 3).into()],
        subscriber_primary: join.two_connections,
    }
}

fn room_info(name: &RoomName) -> RoomInfo {
    RoomInfo {
        sid: "RM_abcdefghijkl".into(),
        name: name.clone(),
        metadata: "".into(),
        empty_timeout: Duration::from_secs(300),
        departure_timeout: Duration::from_secs(20),
        participants_max: 1000,
        participants: 2,
        publishers: 0,
        codecs: vec![Codec::Vp8, Codec::Opus],
        sif_trailer: vec![7; 32],
        created_at_ms: 1_700_000_000_123,
    }
}

fn resumed(room: &RoomName, identity: &Identity) -> Resumed {
    Resumed {
        room: room_info(room),
        participant: participant(identity.as_str(), 0).into(),
        gone: vec![participant("carl", 0).into()],
        others: vec![participant("bert", 0).into()],
        break_off: None,
        last_sequence: 41,
    }
}

fn participant(identity: &str, metadata_bytes: usize) -> ParticipantInfo {
    ParticipantInfo {
        sid: "PA_abcdefghijkl".into(),
        identity: Identity::from(identity),
        name: String::new(),
        metadata: "m".repeat(metadata_bytes),
        attributes: BTreeMap::new(),
        state: ParticipantState::Joined,
        tracks: Vec::new(),
        joined_at_ms: 1_700_000_000_123,
        version: 1,
        permissions: Grant::new("".into()).permissions,
        client: ClientInfo::default(),
        left: None,
    }
}
