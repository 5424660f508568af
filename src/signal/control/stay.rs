//! A participant that is driven through the control socket: one task between its worker and the
//! connection that holds it.
//!
//! When the connection ends, the signalling of its participants does, and no more: media goes on
//! until it falls silent, and another connection can attach to the stay.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::fault::Fault;
use super::{Lines, words};
use crate::config::Limits;
use crate::directory::notices::{self, Receiver};
use crate::directory::{Placement, WorkerGone};
use crate::ids::{Identity, RoomName, TrackSid};
use crate::media::message::{
    AddTrack, Command, Connection, Join, Notice, Request, Resume, SignalEnd,
};

/// How long the first answer of a room may take.
const OPENING_TIMEOUT: Duration = Duration::from_secs(4);

/// How long a stay that nobody holds any more waits for answers that were asked for before.
const LAST_ANSWERS_TIMEOUT: Duration = Duration::from_secs(2);

/// Requests that wait for one participant; the connection waits when there are more.
const ASKED: usize = 8;

/// Tracks that wait for their answer.
const PUBLISHING_MAX: usize = 32;

/// What is asked of a participant that this connection holds; the ids are of the requests.
pub(super) enum Asked {
    Offer { id: Value, sdp: String },
    Candidate { id: Value, candidate: String },
    Publish { id: Value, track: Box<AddTrack> },
}

/// The connection's end of a stay.
pub(super) type Handle = mpsc::Sender<Asked>;

/// A stay whose room has accepted it.
pub(super) struct Stay {
    room: RoomName,
    identity: Identity,
    placement: Placement,
    notices: Receiver,
    lines: Lines,
    /// The offer that waits for its answer.
    offered: Option<(u32, Value)>,
    offers: u32,
    /// Tracks that wait for theirs, by client id.
    publishing: Vec<(String, Value)>,
    /// The room knows that the session ended.
    over: bool,
}

/// How a stay begins.
pub(super) enum Opening {
    /// With an offer, which is answered under this id.
    Join(Box<Join>, Value, String),
    /// By taking up one that is there; `attach` is answered under this id.
    Attach(Value),
}

impl Stay {
    /// Asks the room. What it says to an offer follows later, to an attachment at once.
    pub async fn open(
        placement: Placement,
        (room, identity): (RoomName, Identity),
        opening: Opening,
        limits: &Limits,
        lines: Lines,
    ) -> Result<Handle, Fault> {
        let (sender, notices) = notices::queue(notices::Bounds {
            count: limits.pending_notices,
            bytes: limits.pending_notice_bytes.get(),
        });
        let session = placement.session();
        let (command, after) = match opening {
            Opening::Join(mut join, id, sdp) => {
                join.session = session;
                (Command::Join(join), Ok((id, sdp)))
            }
            Opening::Attach(id) => {
                let resume = Resume {
                    session,
                    room: room.clone(),
                    identity: identity.clone(),
                    sid: None,
                };
                (Command::Resume(resume), Err(id))
            }
        };
        let mut stay = Self {
            room,
            identity,
            placement,
            notices,
            lines,
            offered: None,
            offers: 0,
            publishing: Vec::new(),
            over: false,
        };
        let opened = stay.placement.open(command, sender);
        opened.await.map_err(|WorkerGone| Fault::internal())?;
        let first = timeout(OPENING_TIMEOUT, stay.notices.recv()).await;
        match (first.map_err(|_| Fault::late())?, after) {
            (Some(Notice::Joined(_)), Ok((id, sdp))) => stay.offer(id, sdp).await?,
            (Some(Notice::Resumed(resumed)), Err(id)) => {
                let others = resumed.others.iter().map(|info| words::participant(info));
                let found = json!({
                    "participant": words::participant(&resumed.participant),
                    "others": others.collect::<Vec<_>>(),
                });
                stay.lines.answer(id, Ok(found)).await?;
            }
            (Some(Notice::Refused(refusal)), _) => {
                stay.over = true;
                return Err(refusal.into());
            }
            _ => return Err(Fault::internal()),
        }
        let (handle, asked) = mpsc::channel(ASKED);
        tokio::spawn(stay.run(asked));
        Ok(handle)
    }

    /// Goes on until the stay is over, or nobody holds it and every request has its answer.
    async fn run(mut self, mut asked: mpsc::Receiver<Asked>) {
        let mut left_at = None;
        let end = loop {
            let waits = self.offered.is_some() || !self.publishing.is_empty();
            if left_at.is_some() && !waits {
                return;
            }
            let step = tokio::select! {
                () = sleep_until(left_at.unwrap_or_else(Instant::now)), if left_at.is_some() => {
                    return;
                }
                notice = self.notices.recv() => match notice {
                    Some(notice) => self.tell(notice).await,
                    // The worker drops the channel when it is full, and with its own end.
                    None => {
                        self.over = true;
                        Err(Fault::new("cut_off", "too much was not read in time"))
                    }
                },
                asked = asked.recv(), if left_at.is_none() => match asked {
                    Some(asked) => self.ask(asked).await,
                    None => {
                        left_at = Some(Instant::now() + LAST_ANSWERS_TIMEOUT);
                        Ok(())
                    }
                },
            };
            if let Err(end) = step {
                break end;
            }
        };
        let waiting = self.offered.take().map(|(_, id)| id);
        let publishing = std::mem::take(&mut self.publishing);
        for id in waiting
            .into_iter()
            .chain(publishing.into_iter().map(|(_, id)| id))
        {
            if self.lines.answer(id, Err(end.clone())).await.is_err() {
                return;
            }
        }
    }

    async fn ask(&mut self, asked: Asked) -> Result<(), Fault> {
        match asked {
            Asked::Offer { id, .. } if self.offered.is_some() => {
                let busy = Fault::new("busy", "an earlier offer is not answered yet");
                self.lines.answer(id, Err(busy)).await
            }
            Asked::Offer { id, sdp } => self.offer(id, sdp).await,
            Asked::Candidate { id, candidate } => {
                let connection = Connection::Publisher;
                let request = Request::Candidate {
                    connection,
                    candidate,
                };
                self.post(request).await?;
                self.lines.answer(id, Ok(json!({}))).await
            }
            Asked::Publish { id, .. } if self.publishing.len() == PUBLISHING_MAX => {
                let busy = Fault::new("busy", "too many tracks wait for their answer");
                self.lines.answer(id, Err(busy)).await
            }
            Asked::Publish { id, track } => {
                self.publishing.push((track.cid.clone(), id));
                self.post(Request::AddTrack(track)).await
            }
        }
    }

    async fn offer(&mut self, id: Value, sdp: String) -> Result<(), Fault> {
        self.offers = self.offers.wrapping_add(1);
        self.offered = Some((self.offers, id));
        let id = self.offers;
        self.post(Request::Offer { id, sdp }).await
    }

    async fn post(&self, request: Request) -> Result<(), Fault> {
        let command = Command::Request(self.placement.session(), request);
        let posted = self.placement.post(command).await;
        posted.map_err(|WorkerGone| Fault::internal())
    }

    /// Passes a notice on: as an answer if somebody waits for it, else as an event. An error is the
    /// end.
    async fn tell(&mut self, notice: Notice) -> Result<(), Fault> {
        let end = match &notice {
            Notice::Answer {
                id,
                sdp,
                mid_to_track,
            } => return self.answered(*id, sdp, mid_to_track).await,
            Notice::TrackPublished { cid, track } => {
                if let Some(id) = self.published(cid) {
                    return self.lines.answer(id, Ok(words::track(track))).await;
                }
                None
            }
            Notice::TrackRefused { request, reason } => {
                if let Some(id) = self.published(&request.cid) {
                    return self.lines.answer(id, Err((*reason).into())).await;
                }
                None
            }
            Notice::Left(departure) => {
                let text = format!("the stay has ended: {}", departure.reason.label());
                Some(Fault::new("left", &text))
            }
            Notice::Replaced => Some(Fault::new("left", "another connection holds the stay now")),
            Notice::MediaLost => Some(Fault::new("left", "nothing is heard of the media")),
            _ => None,
        };
        self.over |= end.is_some();
        if let Some((name, fields)) = words::notice(&notice) {
            let (room, identity) = (self.room.as_str(), self.identity.as_str());
            let mut line = json!({ "event": name, "room": room, "identity": identity });
            if let (Some(line), Value::Object(mut fields)) = (line.as_object_mut(), fields) {
                line.append(&mut fields);
            }
            self.lines.write(&line).await?;
        }
        end.map_or(Ok(()), Err)
    }

    async fn answered(
        &mut self,
        offer: u32,
        sdp: &str,
        mid_to_track: &[(String, TrackSid)],
    ) -> Result<(), Fault> {
        match self.offered.take_if(|(id, _)| *id == offer) {
            Some((_, id)) => {
                let answer = words::description(sdp, mid_to_track);
                self.lines.answer(id, Ok(answer)).await
            }
            None => Ok(()),
        }
    }

    /// The id of the request to publish under `cid`.
    fn published(&mut self, cid: &str) -> Option<Value> {
        let at = self.publishing.iter().position(|(waits, _)| waits == cid)?;
        Some(self.publishing.remove(at).1)
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        if !self.over {
            self.placement.post_closed(SignalEnd::ByClient);
        }
    }
}
