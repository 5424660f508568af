//! Requests that the homeserver passes on to its application service (MSC4195, MSC4512): those of
//! its own users, those of other homeservers, and its own.
//!
//! Only who knows `hs_token` is the homeserver, and only then its headers say who asks.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Method;
use axum::http::header::{self, HeaderMap};
use axum::response::Response;
use axum::routing::{post, put};
use serde::Deserialize;
use serde_json::{Value, json};

use super::issue::Wish;
use super::leaving::{Delay, delayed_event};
use super::members::Membership;
use super::refusal::{self, Refusal};
use super::standalone::name_of;
use super::{Matrix, answer, read};
use crate::matrix::homeservers::Call;
use crate::matrix::name::{self, UserId};
use crate::signal::Signal;
use crate::signal::grant::{Member, bearer};

#[derive(Deserialize)]
struct Asked {
    /// The homeserver whose service is asked for, if not our own.
    server_name: Option<String>,
    /// Who asks, where a homeserver asks for it.
    user_id: Option<String>,
    url: Option<String>,
    room_id: Option<String>,
    slot_id: Option<String>,
    member_id: Option<String>,
    delay_id: Option<String>,
}

#[derive(Deserialize)]
struct Transaction {
    #[serde(default)]
    events: Vec<Value>,
}

pub(super) fn routes() -> Router<Arc<Signal>> {
    let mut router = Router::new();
    // The version of the text as it was merged, and that of its drafts.
    for version in ["v1", "unstable/{msc}"] {
        let client = format!("/_matrix/client/{version}/rtc/livekit");
        let federation = format!("/_matrix/federation/{version}/rtc/livekit");
        router = router
            .route(&format!("{client}/get_token"), post(get_token))
            .route(&format!("{client}/delegate_delayed_leave"), post(delegate))
            .route(&format!("{federation}/get_token"), post(get_token_for));
    }
    router
        .route("/_matrix/app/v1/ping", post(ping))
        .route("/_matrix/app/v1/transactions/{id}", put(transaction))
}

async fn get_token(State(signal): State<Arc<Signal>>, headers: HeaderMap, body: Body) -> Response {
    let served = async {
        let matrix = homeserver(&signal, &headers)?;
        let user = user(matrix, &headers)?;
        let asked = read::<Asked>(body).await?;
        let (home, _) = matrix.service.as_ref().ok_or(refusal::OFF)?;
        match asked.server_name.clone().filter(|name| name != home) {
            Some(server) => matrix.get_token_at(&server, &user, asked).await,
            None => {
                let wish = matrix.wish(user, &asked).await?;
                Ok(json!({ "jwt": matrix.issue(&signal, &wish).await? }))
            }
        }
    };
    answer(&signal, served.await)
}

/// For a user of the homeserver that asked ours.
async fn get_token_for(
    State(signal): State<Arc<Signal>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let served = async {
        let matrix = homeserver(&signal, &headers)?;
        let origin = text(&headers, "x-matrix-origin").ok_or(refusal::NOT_FOR_YOU)?;
        let asked = read::<Asked>(body).await?;
        let user = name_of(asked.user_id.clone(), "user_id is missing")?;
        let user = UserId::new(&user).filter(|user| user.server() == origin);
        let wish = matrix
            .wish(user.ok_or(refusal::NOT_FOR_YOU)?, &asked)
            .await?;
        Ok(json!({ "jwt": matrix.issue(&signal, &wish).await? }))
    };
    answer(&signal, served.await)
}

async fn delegate(State(signal): State<Arc<Signal>>, headers: HeaderMap, body: Body) -> Response {
    let served = async {
        let matrix = homeserver(&signal, &headers)?;
        if !matrix.takes_leaves() {
            return Err(refusal::OFF);
        }
        let user = user(matrix, &headers)?;
        let asked = read::<Asked>(body).await?;
        let id = name_of(asked.delay_id.clone(), "delay_id is missing")?;
        let wish = matrix.wish(user, &asked).await?;
        let delay = matrix.delay(&wish.user, id).await?;
        matrix.delegate(&signal, &wish, delay).await?;
        Ok(json!({}))
    };
    answer(&signal, served.await)
}

/// The homeserver tries whether we are there.
async fn ping(State(signal): State<Arc<Signal>>, headers: HeaderMap) -> Response {
    let served = homeserver(&signal, &headers).map(|_| json!({}));
    answer(&signal, served)
}

/// Events, if the registration asks for them. Of those that tell of a member in a call we find out
/// ourselves what is true; all others are nothing to us.
async fn transaction(
    State(signal): State<Arc<Signal>>,
    Path(_): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let served = async {
        let matrix = homeserver(&signal, &headers)?;
        let body = axum::body::to_bytes(body, super::TRANSACTION_BYTES_MAX).await;
        let body = body.map_err(|_| refusal::TOO_LARGE)?;
        let read = serde_json::from_slice::<Transaction>(&body);
        let events = read.map_err(|_| refusal::NOT_JSON)?.events;
        matrix.members.tell();
        for event in events {
            let field = |name: &str| event.get(name).and_then(Value::as_str);
            if let (Some("m.room.member"), Some(room), Some(user)) =
                (field("type"), field("room_id"), field("state_key"))
            {
                matrix.members.doubt(Member {
                    room: room.to_owned(),
                    user: user.to_owned(),
                });
            }
        }
        Ok(json!({}))
    };
    answer(&signal, served.await)
}

/// Fails unless the homeserver asks.
fn homeserver<'a>(signal: &'a Signal, headers: &HeaderMap) -> Result<&'a Matrix, Refusal> {
    let matrix = signal.matrix.as_ref().ok_or(refusal::OFF)?;
    let (_, registration) = matrix.service.as_ref().ok_or(refusal::OFF)?;
    let token = headers.get(header::AUTHORIZATION);
    let token = token.and_then(|value| bearer(value.to_str().ok()));
    let token = token.ok_or(refusal::NO_HS_TOKEN)?;
    verify_slices_are_equal(token.as_bytes(), registration.hs_token.as_bytes())
        .map_err(|_| refusal::WRONG_HS_TOKEN)?;
    Ok(matrix)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The user whom the homeserver names: one of its own.
fn user(matrix: &Matrix, headers: &HeaderMap) -> Result<UserId, Refusal> {
    let user = text(headers, "x-matrix-user-identifier").and_then(UserId::new);
    let (home, _) = matrix.service.as_ref().ok_or(refusal::OFF)?;
    user.filter(|user| user.server() == home)
        .ok_or(refusal::NOT_FOR_YOU)
}

impl Matrix {
    /// What a user asks for that the homeserver vouches for, who has to be in the room.
    async fn wish(&self, user: UserId, asked: &Asked) -> Result<Wish, Refusal> {
        let url = name_of(asked.url.clone(), "url is missing")?;
        if url != self.url {
            return Err(refusal::NOT_OUR_URL);
        }
        let matrix_room = name_of(asked.room_id.clone(), "room_id is missing")?;
        let slot = name_of(asked.slot_id.clone(), "slot_id is missing")?;
        let member = name_of(asked.member_id.clone(), "member_id is missing")?;
        let wish = Wish {
            identity: name::identity(&user, &member),
            by_homeserver: true,
            user,
            matrix_room,
            slot,
        };
        self.check_membership(&wish).await?;
        Ok(wish)
    }

    /// Gets a token from the service of another homeserver, by ours and that one.
    async fn get_token_at(
        &self,
        server: &str,
        user: &UserId,
        asked: Asked,
    ) -> Result<Value, Refusal> {
        let (home, registration) = self.service.as_ref().ok_or(refusal::OFF)?;
        let room = name_of(asked.room_id, "room_id is missing")?;
        let who = format!("server_name={}", super::escaped(server));
        match self.is_joined(&room, &who).await {
            Membership::Joined => {}
            Membership::NotJoined => return Err(refusal::NOT_JOINED),
            Membership::Unknown => return Err(refusal::MEMBERSHIP_UNKNOWN),
        }
        let call = Call {
            method: Method::POST,
            path_and_query: "/_matrix/client/unstable/io.element.msc4512/appservice/fed_proxy"
                .to_owned(),
            token: Some(registration.as_token.as_str()),
            body: Some(json!({
                "destination": server,
                "method": "POST",
                "path": "/_matrix/federation/unstable/io.element.msc4195/rtc/livekit/get_token",
                "body": {
                    "user_id": user.as_str(),
                    "url": asked.url,
                    "room_id": room,
                    "slot_id": asked.slot_id,
                    "member_id": asked.member_id,
                },
            })),
        };
        let answer = self.homeservers.call(home, call).await;
        let answer = answer.map_err(|_| refusal::REMOTE_FAILED)?;
        let status = answer.body.get("status").and_then(Value::as_u64);
        let content = answer.body.get("content");
        let jwt = content
            .and_then(|content| content.get("jwt"))
            .and_then(Value::as_str);
        match (answer.status, status, jwt) {
            (200, Some(200), Some(jwt)) => Ok(json!({ "jwt": jwt })),
            (200, Some(403), _) => Err(refusal::REMOTE_FORBADE),
            (200, Some(400), _) => Err(refusal::REMOTE_REFUSED),
            _ => Err(refusal::REMOTE_FAILED),
        }
    }

    /// The delay of a user's leave, which only the homeserver says.
    async fn delay(&self, user: &UserId, id: String) -> Result<Delay, Refusal> {
        let (home, registration) = self.service.as_ref().ok_or(refusal::OFF)?;
        let call = Call {
            method: Method::GET,
            path_and_query: delayed_event(&id, "", Some(user.as_str())),
            token: Some(registration.as_token.as_str()),
            body: None,
        };
        let answer = self.homeservers.call(home, call).await;
        let answer = answer.map_err(|_| refusal::NO_ANSWER)?;
        // `delay` is how earlier texts of MSC4140 had it.
        let told = |key| answer.body.get(key).and_then(Value::as_u64);
        let delay = told("delay_ms").or_else(|| told("delay"));
        let delay = delay.and_then(|ms| Delay::new(id, Duration::from_millis(ms)));
        match answer.status {
            200 => delay.ok_or(refusal::NO_DELAY),
            400..500 => Err(refusal::NO_DELAY),
            _ => Err(refusal::NO_ANSWER),
        }
    }
}
