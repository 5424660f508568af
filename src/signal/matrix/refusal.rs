//! Errors as Matrix writes them. None says more than what the client did.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

/// Why there is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    pub text: &'static str,
}

impl Refusal {
    const fn new(status: StatusCode, code: &'static str, text: &'static str) -> Self {
        Self { status, code, text }
    }

    /// A field that is missing or can't be.
    pub const fn bad_json(text: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_BAD_JSON", text)
    }
}

/// An answer in JSON.
pub(super) fn json(status: StatusCode, body: &Value) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (status, kind, body.to_string()).into_response()
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "errcode": self.code, "error": self.text });
        json(self.status, &body)
    }
}

pub(super) const NOT_JSON: Refusal = Refusal::new(
    StatusCode::BAD_REQUEST,
    "M_NOT_JSON",
    "the body is not the JSON that belongs here",
);

pub(super) const TOO_LARGE: Refusal = Refusal::new(
    StatusCode::PAYLOAD_TOO_LARGE,
    "M_TOO_LARGE",
    "the body is too long or broke off",
);

/// Whatever went wrong: another text for a server that can't be reached would make us a scanner of
/// ports.
pub(super) const UNAUTHORIZED: Refusal = Refusal::new(
    StatusCode::UNAUTHORIZED,
    "M_UNAUTHORIZED",
    "the OpenID token could not be verified",
);

pub(super) const NOT_JOINED: Refusal = Refusal::new(
    StatusCode::FORBIDDEN,
    "M_FORBIDDEN",
    "the user is not in the Matrix room",
);

pub(super) const NO_FULL_ACCESS: Refusal = Refusal::new(
    StatusCode::FORBIDDEN,
    "M_FORBIDDEN",
    "users of this homeserver can't entrust their leave to this service",
);

pub(super) const MEMBERSHIP_UNKNOWN: Refusal = Refusal::new(
    StatusCode::BAD_GATEWAY,
    "M_UNKNOWN",
    "the homeserver did not say who is in the Matrix room",
);

pub(super) const NO_ANSWER: Refusal = Refusal::new(
    StatusCode::BAD_GATEWAY,
    "M_UNKNOWN",
    "the homeserver did not say what is known of the delayed event",
);

pub(super) const NO_ROOM: Refusal = Refusal::new(
    StatusCode::INTERNAL_SERVER_ERROR,
    "M_UNKNOWN",
    "the room of the call could not be opened",
);

pub(super) const FULL: Refusal = Refusal::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "M_UNKNOWN",
    "there is no room for another call",
);

pub(super) const STOPPING: Refusal = Refusal::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "M_UNKNOWN",
    "the service is shutting down",
);

pub(super) const OFF: Refusal = Refusal::new(
    StatusCode::NOT_FOUND,
    "M_UNRECOGNIZED",
    "there is no such endpoint",
);

pub(super) const NO_HS_TOKEN: Refusal = Refusal::new(
    StatusCode::UNAUTHORIZED,
    "M_MISSING_TOKEN",
    "only the homeserver may ask here",
);

pub(super) const WRONG_HS_TOKEN: Refusal = Refusal::new(
    StatusCode::UNAUTHORIZED,
    "M_UNKNOWN_TOKEN",
    "only the homeserver may ask here",
);

pub(super) const NOT_FOR_YOU: Refusal = Refusal::new(
    StatusCode::FORBIDDEN,
    "M_FORBIDDEN",
    "the user is none of the homeserver that asks",
);

pub(super) const NOT_OUR_URL: Refusal = Refusal::new(
    StatusCode::BAD_REQUEST,
    "M_INVALID_PARAM",
    "url is not that of this service",
);

pub(super) const NO_DELAY: Refusal = Refusal::new(
    StatusCode::BAD_REQUEST,
    "M_INVALID_PARAM",
    "delay_id is no delayed event of the user, or one of less than 10 s or more than a day",
);

pub(super) const REMOTE_FORBADE: Refusal = Refusal::new(
    StatusCode::FORBIDDEN,
    "M_FORBIDDEN",
    "the other homeserver does not allow it",
);

pub(super) const REMOTE_REFUSED: Refusal = Refusal::new(
    StatusCode::BAD_REQUEST,
    "M_INVALID_PARAM",
    "the other homeserver does not understand it",
);

pub(super) const REMOTE_FAILED: Refusal = Refusal::new(
    StatusCode::BAD_GATEWAY,
    "M_UNKNOWN",
    "the other homeserver did not answer as it should",
);
