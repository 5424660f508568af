//! From a user that somebody vouches for to a room and a token for it.

use std::sync::Arc;
use std::time::Duration;

use super::Matrix;
use super::members::Membership;
use super::refusal::{self, Refusal};
use crate::ids::{Identity, RoomName};
use crate::matrix::name::{self, UserId};
use crate::media::message::Refusal as Closed;
use crate::media::message::administration::{RoomOptions, RoomRefusal, RoomRequest};
use crate::signal::grant::{Grant, MatrixCall, Member};
use crate::signal::{Signal, unix_now};

/// A room answers in milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// What a verified user asks for.
pub(super) struct Wish {
    pub user: UserId,
    /// The homeserver itself asks; then other homeservers' users may open rooms too.
    pub by_homeserver: bool,
    /// Who it is to be in the room of the call.
    pub identity: Identity,
    pub matrix_room: String,
    pub slot: String,
}

impl Wish {
    /// The room of the call.
    pub fn room(&self) -> RoomName {
        name::room(&self.matrix_room, &self.slot)
    }
}

impl Matrix {
    /// Fails unless the user is in the Matrix room, as far as that is asked.
    pub(super) async fn check_membership(&self, wish: &Wish) -> Result<(), Refusal> {
        let Some(member) = self.watched(wish) else {
            return Ok(());
        };
        match self.membership(&member).await {
            Membership::Joined => Ok(()),
            Membership::NotJoined => Err(refusal::NOT_JOINED),
            Membership::Unknown => {
                tracing::warn!(
                    "no token: the homeserver does not say who is in its rooms; see whether it \
                     runs, has msc4502_enabled and the registration, or take \
                     matrix.require_membership = false"
                );
                Err(refusal::MEMBERSHIP_UNKNOWN)
            }
        }
    }

    /// The membership on which a token depends.
    fn watched(&self, wish: &Wish) -> Option<Member> {
        let asked = wish.by_homeserver || self.require_membership;
        (self.service.is_some() && asked).then(|| Member {
            room: wish.matrix_room.clone(),
            user: wish.user.as_str().to_owned(),
        })
    }

    /// Opens the room where the user may do that, and makes the token.
    pub(super) async fn issue(&self, signal: &Arc<Signal>, wish: &Wish) -> Result<String, Refusal> {
        let policy = &signal.config.matrix;
        let server = wish.user.server();
        let open = wish.by_homeserver || policy.has_full_access(server);
        let publish = policy.may_publish(server);
        if wish.identity.as_str().len() > signal.config.limits.identity_bytes.get() {
            return Err(Refusal::bad_json("user id and device are too long"));
        }
        let room = wish.room();
        signal.directory.admits(&room).map_err(closed)?;
        if open {
            open_room(signal, &room).await?;
        }
        let mut grant = Grant::new(wish.identity.clone());
        grant.room = Some(room);
        grant.room_join = true;
        grant.permissions.publish = publish;
        grant.permissions.update_metadata = policy.update_metadata;
        grant.matrix = Some(MatrixCall {
            open,
            member: self.watched(wish),
        });
        let (key, secret) = &self.key;
        Ok(grant.mint(key, secret, unix_now(), policy.token_time))
    }
}

async fn open_room(signal: &Arc<Signal>, room: &RoomName) -> Result<(), Refusal> {
    let create = RoomRequest::Create(RoomOptions::default());
    let asked = tokio::time::timeout(ANSWER_TIMEOUT, signal.directory.ask(room, create)).await;
    match asked {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(RoomRefusal::Refused(refusal))) => Err(closed(refusal)),
        _ => Err(refusal::NO_ROOM),
    }
}

fn closed(refusal: Closed) -> Refusal {
    match refusal {
        Closed::ShuttingDown => refusal::STOPPING,
        Closed::RoomFull | Closed::NodeFull => refusal::FULL,
        _ => refusal::NO_ROOM,
    }
}
