//! Requests of clients that bring an OpenID token of their homeserver: `/sfu/get` of old and
//! `/get_token`. A client may entrust its leave along with either, or on its own.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::issue::Wish;
use super::leaving::Delay;
use super::refusal::{self, Refusal};
use super::{Matrix, answer, read};
use crate::ids::{Household, Identity};
use crate::matrix::homeservers::TOKEN_BYTES;
use crate::matrix::name::{self, CALL_SLOT, UserId};
use crate::signal::Signal;

/// Bytes of a name that a client gives: of a room, a slot, a device.
const NAME_BYTES_MAX: usize = 255;

#[derive(Deserialize)]
struct OpenIdToken {
    access_token: Option<String>,
    matrix_server_name: Option<String>,
}

/// Absent or null, every field: what is missing is another error than what is no JSON.
#[derive(Deserialize)]
pub(super) struct SfuGet {
    room: Option<String>,
    openid_token: Option<OpenIdToken>,
    device_id: Option<String>,
    delay_id: Option<String>,
    delay_timeout: Option<u64>,
}

#[derive(Deserialize)]
pub(super) struct GetToken {
    room_id: Option<String>,
    slot_id: Option<String>,
    openid_token: Option<OpenIdToken>,
    member: Option<MemberClaims>,
    delay_id: Option<String>,
    delay_timeout: Option<u64>,
}

#[derive(Deserialize)]
struct MemberClaims {
    id: Option<String>,
    claimed_user_id: Option<String>,
    claimed_device_id: Option<String>,
}

/// What of a request is left to be verified.
pub(super) struct Asked {
    token: String,
    server: String,
    room: String,
    slot: String,
    device: String,
    /// Member id and claimed user, which the older request doesn't have.
    member: Option<(String, String)>,
    delay: Option<Delay>,
}

/// Either kind of request for a token.
pub(super) trait Request: DeserializeOwned {
    /// What is in it, if nothing is missing.
    fn asked(self) -> Result<Asked, Refusal>;
}

pub(super) async fn get_token<Q: Request>(
    State(signal): State<Arc<Signal>>,
    Extension(asker): Extension<Household>,
    body: Body,
) -> Response {
    let served = async {
        let matrix = signal.matrix.as_ref().ok_or(refusal::OFF)?;
        let asked = read::<Q>(body).await?.asked()?;
        token(&signal, matrix, asked, asker).await
    };
    answer(&signal, served.await)
}

/// Clients ask here without a body whether a leave can be entrusted, and 404 alone means that it
/// can't: then they keep a timer of seconds, otherwise one of an hour.
pub(super) async fn delegate(
    State(signal): State<Arc<Signal>>,
    Extension(asker): Extension<Household>,
    body: Body,
) -> Response {
    let served = async {
        let matrix = signal
            .matrix
            .as_ref()
            .filter(|matrix| matrix.takes_leaves());
        let matrix = matrix.ok_or(refusal::OFF)?;
        let mut asked = read::<GetToken>(body).await?.asked()?;
        let missing = "delay_id and delay_timeout are missing";
        let delay = asked.delay.take().ok_or(Refusal::bad_json(missing))?;
        let full_access = signal.config.matrix.has_full_access(&asked.server);
        let wish = asked.verified(matrix, asker).await?;
        if !full_access {
            return Err(refusal::NO_FULL_ACCESS);
        }
        matrix.check_leaves_of(&wish.user).await?;
        matrix.delegate(&signal, &wish, delay).await?;
        Ok(json!({}))
    };
    answer(&signal, served.await)
}

async fn token(
    signal: &Arc<Signal>,
    matrix: &Matrix,
    mut asked: Asked,
    asker: Household,
) -> Result<serde_json::Value, Refusal> {
    let delay = asked.delay.take();
    if delay.is_some() {
        let why = "the leave can't be entrusted to this service; leave delay_id out";
        if !(matrix.takes_leaves() && signal.config.matrix.has_full_access(&asked.server)) {
            return Err(Refusal::bad_json(why));
        }
    }
    let wish = asked.verified(matrix, asker).await?;
    if delay.is_some() {
        // Before the room is there: the client asks again without its leave.
        matrix.check_leaves_of(&wish.user).await?;
    }
    let jwt = matrix.issue(signal, &wish).await?;
    if let Some(delay) = delay {
        matrix.delegate(signal, &wish, delay).await?;
    }
    Ok(json!({ "url": matrix.url, "jwt": jwt }))
}

/// A text that is there.
fn given(text: Option<String>, missing: &'static str, max: usize) -> Result<String, Refusal> {
    let text = text.filter(|text| !text.is_empty());
    let text = text.ok_or(Refusal::bad_json(missing))?;
    match text.len() > max || text.contains('\0') {
        true => Err(Refusal::bad_json("a field is too long or has a NUL in it")),
        false => Ok(text),
    }
}

pub(super) fn name_of(text: Option<String>, missing: &'static str) -> Result<String, Refusal> {
    given(text, missing, NAME_BYTES_MAX)
}

fn delay(id: Option<String>, timeout: Option<u64>) -> Result<Option<Delay>, Refusal> {
    match (id.filter(|id| !id.is_empty()), timeout) {
        (None, None) => Ok(None),
        (Some(id), Some(milliseconds)) => {
            let id = name_of(Some(id), "delay_id is missing")?;
            let why = "delay_timeout is less than 10 s or more than a day";
            let delay = Delay::new(id, Duration::from_millis(milliseconds));
            delay.map(Some).ok_or(Refusal::bad_json(why))
        }
        _ => Err(Refusal::bad_json(
            "delay_id and delay_timeout belong together",
        )),
    }
}

impl OpenIdToken {
    fn asked(token: Option<Self>) -> Result<(String, String), Refusal> {
        let token = token.ok_or(Refusal::bad_json("openid_token is missing"))?;
        let missing = "openid_token.access_token is missing";
        let access = given(token.access_token, missing, TOKEN_BYTES)?;
        let missing = "openid_token.matrix_server_name is missing";
        Ok((access, name_of(token.matrix_server_name, missing)?))
    }
}

impl Request for SfuGet {
    fn asked(self) -> Result<Asked, Refusal> {
        let (token, server) = OpenIdToken::asked(self.openid_token)?;
        Ok(Asked {
            token,
            server,
            room: name_of(self.room, "room is missing")?,
            slot: CALL_SLOT.to_owned(),
            device: name_of(self.device_id, "device_id is missing")?,
            member: None,
            delay: delay(self.delay_id, self.delay_timeout)?,
        })
    }
}

impl Request for GetToken {
    fn asked(self) -> Result<Asked, Refusal> {
        let (token, server) = OpenIdToken::asked(self.openid_token)?;
        let member = self.member.ok_or(Refusal::bad_json("member is missing"))?;
        let missing = "member.claimed_device_id is missing";
        let device = name_of(member.claimed_device_id, missing)?;
        let user = name_of(member.claimed_user_id, "member.claimed_user_id is missing")?;
        Ok(Asked {
            token,
            server,
            room: name_of(self.room_id, "room_id is missing")?,
            slot: name_of(self.slot_id, "slot_id is missing")?,
            device,
            member: Some((name_of(member.id, "member.id is missing")?, user)),
            delay: delay(self.delay_id, self.delay_timeout)?,
        })
    }
}

impl Asked {
    /// What is asked for, once the homeserver has said who asks.
    async fn verified(self, matrix: &Matrix, asker: Household) -> Result<Wish, Refusal> {
        let claimed = self.member.as_ref().map(|(_, claimed)| claimed.as_str());
        let homeservers = &matrix.homeservers;
        let verified = homeservers.user_of(&self.server, &self.token, claimed, asker);
        let user = verified.await.map_err(|_| refusal::UNAUTHORIZED)?;
        let wish = Wish {
            identity: self.identity(&user),
            user,
            by_homeserver: false,
            matrix_room: self.room,
            slot: self.slot,
        };
        matrix.check_membership(&wish).await?;
        Ok(wish)
    }

    fn identity(&self, user: &UserId) -> Identity {
        match &self.member {
            None => name::legacy_identity(user, &self.device),
            Some((member, _)) => name::standalone_identity(user, &self.device, member),
        }
    }
}
