//! Errors as Twirp writes them: JSON with a code and a message, whatever the request was in.

use std::fmt;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::media::message::Refusal;
use crate::media::message::administration::RoomRefusal;

/// A call that is not answered. Its message never says what was in the request.
#[derive(Debug)]
pub(super) struct Error {
    code: Code,
    message: String,
}

/// The codes of Twirp's specification that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    Malformed,
    InvalidArgument,
    Unauthenticated,
    NotFound,
    BadRoute,
    FailedPrecondition,
    ResourceExhausted,
    Unimplemented,
    Internal,
    Unavailable,
}

impl Code {
    /// Its name and its HTTP status.
    fn on_the_wire(self) -> (&'static str, StatusCode) {
        match self {
            Self::Malformed => ("malformed", StatusCode::BAD_REQUEST),
            Self::InvalidArgument => ("invalid_argument", StatusCode::BAD_REQUEST),
            Self::Unauthenticated => ("unauthenticated", StatusCode::UNAUTHORIZED),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND),
            Self::BadRoute => ("bad_route", StatusCode::NOT_FOUND),
            Self::FailedPrecondition => ("failed_precondition", StatusCode::PRECONDITION_FAILED),
            Self::ResourceExhausted => ("resource_exhausted", StatusCode::TOO_MANY_REQUESTS),
            Self::Unimplemented => ("unimplemented", StatusCode::NOT_IMPLEMENTED),
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR),
            Self::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE),
        }
    }
}

impl Error {
    pub fn new(code: Code, message: &str) -> Self {
        Self {
            code,
            message: message.to_owned(),
        }
    }

    /// A room answered something else than what it was asked for.
    pub fn unexpected() -> Self {
        Self::new(Code::Internal, "internal error")
    }
}

impl From<RoomRefusal> for Error {
    fn from(refusal: RoomRefusal) -> Self {
        let (code, message) = match refusal {
            RoomRefusal::RoomMissing => (Code::NotFound, "requested room does not exist"),
            RoomRefusal::ParticipantMissing => (Code::NotFound, "participant does not exist"),
            RoomRefusal::TrackMissing => (Code::NotFound, "track does not exist"),
            RoomRefusal::DataTooLong => (Code::InvalidArgument, "the data is too long"),
            RoomRefusal::Profile(why) => {
                return Self::new(Code::InvalidArgument, &why.to_string());
            }
            RoomRefusal::Refused(Refusal::NodeFull | Refusal::RoomFull) => {
                (Code::ResourceExhausted, "this node is full")
            }
            RoomRefusal::Refused(Refusal::ShuttingDown) => {
                (Code::Unavailable, "this node is shutting down")
            }
            RoomRefusal::Refused(_) | RoomRefusal::Internal => (Code::Internal, "internal error"),
        };
        Self::new(code, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (code, status) = self.code.on_the_wire();
        let body = serde_json::json!({ "code": code, "msg": self.message });
        let kind = [(header::CONTENT_TYPE, "application/json")];
        (status, kind, body.to_string()).into_response()
    }
}
