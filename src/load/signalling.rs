//! One participant's half of LiveKit's signalling (v1, one peer connection): joins, offers, and
//! hands what the server says of media to the engine.

use std::sync::mpsc::Sender;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE;
use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_request::Message as Ask;
use proto::signal_response::Message as Reply;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tungstenite::Message;

use super::address::{Address, Socket};
use super::clock::Clock;
use super::engine::Order;
use super::participant::Participant;
use super::picture::LAYERS;
use super::plan::Part;
use super::publisher::Mids;
use super::sdp::{Answer, CANDIDATES_MAX, Sections, candidate};
use super::transport::Transport;
use crate::media::message::Kind;

/// For a join to be answered.
pub const JOIN_TIME: Duration = Duration::from_secs(15);

/// For the server to close a connection.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// Between two pings, as LiveKit's server asks for.
const PING_TIME: Duration = Duration::from_secs(5);

/// One participant's session.
pub struct Session {
    part: Part,
    socket: Socket,
    sections: Sections,
    /// Until there is an answer.
    transport: Option<Transport>,
    mids: Option<Mids>,
    orders: Sender<Order>,
    offer_id: u32,
    answered: bool,
    offer_again: bool,
    /// Addresses of the server that may still come.
    candidates_left: usize,
}

impl Session {
    /// Joins: offers, and announces what it is going to send, in the same request.
    pub async fn join(
        part: Part,
        address: &Address,
        token: &str,
        clock: &Clock,
        orders: Sender<Order>,
    ) -> Result<Self, String> {
        let mut transport = Transport::new(clock.now());
        let mut sections = Sections::new(transport.credentials());
        let mut request = proto::JoinRequest {
            client_info: Some(proto::ClientInfo {
                sdk: proto::client_info::Sdk::Js.into(),
                version: "2.23.0".to_owned(),
                protocol: 17,
                ..Default::default()
            }),
            connection_settings: Some(proto::ConnectionSettings {
                auto_subscribe: true,
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut mids = None;
        if part.publishes {
            request.add_track_requests = vec![microphone(), camera()];
            mids = Some(Mids {
                audio: sections.send(Kind::Audio, MICROPHONE),
                video: sections.send(Kind::Video, CAMERA),
            });
        }
        let offer_id = 1;
        request.publisher_offer = Some(description(sections.offer(), offer_id));
        let wrapped = proto::WrappedJoinRequest {
            join_request: request.encode_to_vec(),
            ..Default::default()
        };
        let request = BASE64_URL_SAFE.encode(wrapped.encode_to_vec());
        let opened = timeout(JOIN_TIME, address.open(token, &request)).await;
        let late = |_| format!("a join is not answered within {} s", JOIN_TIME.as_secs());
        Ok(Self {
            part,
            socket: opened.map_err(late)??,
            sections,
            transport: Some(transport),
            mids,
            orders,
            offer_id,
            answered: false,
            offer_again: false,
            candidates_left: CANDIDATES_MAX,
        })
    }

    /// Stays until `over` says so, or the server ends it: that is an error.
    pub async fn stay(mut self, over: &Notify) -> Result<(), String> {
        let mut ping = interval(PING_TIME);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let begun = Instant::now();
        loop {
            tokio::select! {
                message = self.socket.next() => match message {
                    Some(Ok(Message::Binary(frame))) => self.take(&frame).await?,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(BROKEN.to_owned()),
                    Some(Ok(_)) => {}
                },
                _ = ping.tick() => {
                    let timestamp = begun.elapsed().as_millis() as i64;
                    self.say(Ask::PingReq(proto::Ping { timestamp, rtt: 0 })).await?;
                }
                () = over.notified() => return self.leave().await,
            }
        }
    }

    async fn leave(mut self) -> Result<(), String> {
        let leave = proto::LeaveRequest {
            reason: proto::DisconnectReason::ClientInitiated.into(),
            ..Default::default()
        };
        self.say(Ask::Leave(leave)).await?;
        // Until the server has closed: who drops a connection with something unread in it may take
        // back what was said.
        let closed = async {
            let _ = self.socket.close(None).await;
            while let Some(Ok(_)) = self.socket.next().await {}
        };
        let _ = timeout(CLOSE_TIME, closed).await;
        Ok(())
    }

    async fn say(&mut self, message: Ask) -> Result<(), String> {
        let request = proto::SignalRequest {
            message: Some(message),
        };
        let frame = Message::Binary(request.encode_to_vec().into());
        self.socket.send(frame).await.map_err(|_| BROKEN.to_owned())
    }

    async fn take(&mut self, frame: &[u8]) -> Result<(), String> {
        let response = proto::SignalResponse::decode(frame);
        let response = response.map_err(|_| "the server says what is no signal".to_owned())?;
        match response.message {
            Some(Reply::Answer(answer)) => self.take_answer(&answer.sdp).await,
            Some(Reply::Trickle(trickle)) => {
                self.take_candidate(&trickle.candidate_init);
                Ok(())
            }
            Some(Reply::MediaSectionsRequirement(more)) => {
                self.sections.require(more.num_audios, more.num_videos);
                self.offer_again = true;
                self.offer().await
            }
            Some(Reply::Leave(leave)) => Err(format!(
                "the server sends a participant away: {}",
                leave.reason().as_str_name()
            )),
            _ => Ok(()),
        }
    }

    /// Offers again if that is wanted and the last offer has its answer.
    async fn offer(&mut self) -> Result<(), String> {
        if !(self.answered && self.offer_again) {
            return Ok(());
        }
        (self.answered, self.offer_again) = (false, false);
        self.offer_id += 1;
        let offer = description(self.sections.offer(), self.offer_id);
        self.say(Ask::Offer(offer)).await
    }

    async fn take_answer(&mut self, sdp: &str) -> Result<(), String> {
        self.answered = true;
        if let Some(mut transport) = self.transport.take() {
            let answer = Answer::parse(sdp).filter(|answer| transport.answered(answer));
            let answer = answer.ok_or("the server's answer is none for WebRTC")?;
            for address in answer.candidates {
                transport
                    .candidate(address)
                    .map_err(|error| format!("no way to {address}: {error}"))?;
            }
            let mut participant = Participant::new(self.part, transport, self.mids.clone());
            participant.repairs = answer.repairs;
            self.order(Order::Enter(Box::new(participant)));
        } else if let Some(answer) = Answer::parse(sdp) {
            self.order(Order::Repairs(self.part.number, answer.repairs));
        }
        self.offer().await
    }

    /// Candidates come after the answer, as they belong to it.
    fn take_candidate(&mut self, init: &str) {
        let init: serde_json::Value = serde_json::from_str(init).unwrap_or_default();
        let text = init.get("candidate").and_then(serde_json::Value::as_str);
        let text = text.and_then(|text| text.strip_prefix("candidate:"));
        let left = self.candidates_left.checked_sub(1);
        let (Some(address), Some(left)) = (text.and_then(candidate), left) else {
            return;
        };
        self.candidates_left = left;
        match &mut self.transport {
            // One that no socket can reach is no candidate.
            Some(transport) => _ = transport.candidate(address),
            None => self.order(Order::Candidate(self.part.number, address)),
        }
    }

    fn order(&self, order: Order) {
        // The engine ends only when all is over.
        let _ = self.orders.send(order);
    }
}

const BROKEN: &str = "the connection for signals broke";

const MICROPHONE: &str = "microphone";
const CAMERA: &str = "camera";

fn description(sdp: String, id: u32) -> proto::SessionDescription {
    proto::SessionDescription {
        r#type: "offer".to_owned(),
        sdp,
        id,
        ..Default::default()
    }
}

fn microphone() -> proto::AddTrackRequest {
    proto::AddTrackRequest {
        cid: MICROPHONE.to_owned(),
        r#type: proto::TrackType::Audio.into(),
        source: proto::TrackSource::Microphone.into(),
        disable_red: true,
        ..Default::default()
    }
}

fn camera() -> proto::AddTrackRequest {
    let qualities = [
        proto::VideoQuality::Low,
        proto::VideoQuality::Medium,
        proto::VideoQuality::High,
    ];
    let layers = LAYERS.iter().zip(qualities).enumerate();
    let layers: Vec<_> = layers
        .map(|(spatial, (layer, quality))| proto::VideoLayer {
            quality: quality.into(),
            width: layer.width.into(),
            height: layer.height.into(),
            bitrate: layer.bits,
            spatial_layer: spatial as i32,
            rid: layer.rid.to_owned(),
            ..Default::default()
        })
        .collect();
    let full = LAYERS[LAYERS.len() - 1];
    proto::AddTrackRequest {
        cid: CAMERA.to_owned(),
        r#type: proto::TrackType::Video.into(),
        source: proto::TrackSource::Camera.into(),
        width: full.width.into(),
        height: full.height.into(),
        layers: layers.clone(),
        simulcast_codecs: vec![proto::SimulcastCodec {
            codec: "vp8".to_owned(),
            cid: CAMERA.to_owned(),
            layers,
            ..Default::default()
        }],
        ..Default::default()
    }
}
