//! Tokens: what an API key's holder allows a participant, signed with HS256.
//!
//! The algorithm is fixed here and never taken from a token. What is checked, in this order: size,
//! header, signature, times, contents. An unknown key is answered like a wrong signature, after
//! the same work. What is not here: which room may be created, and who is in one.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write};
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::Number;
use serde_json::value::RawValue;

use crate::config::{Config, Secret};
use crate::ids::{Identity, Private, RoomName};
use crate::media::message::{Permissions, Source};

/// How far the clocks of the issuer and this host may be apart.
const LEEWAY: Duration = Duration::from_secs(60);

/// Signatures of unknown keys are compared with one by this, and refused whatever comes out.
const DECOY: &[u8] = b"no key at all, only equal work for unknown names";

/// Names of sources in tokens.
const SOURCES: [(&str, Source); 4] = [
    ("camera", Source::Camera),
    ("microphone", Source::Microphone),
    ("screen_share", Source::ScreenShare),
    ("screen_share_audio", Source::ScreenShareAudio),
];

/// What a token says, checked.
#[derive(Clone, PartialEq)]
pub struct Grant {
    /// The name of the API key it was signed with; empty before it is signed.
    pub key: String,
    /// When its token ends, since 1970.
    pub expires: Duration,
    /// Who. Empty only without `room_join`, in tokens of servers.
    pub identity: Identity,
    /// Display name.
    pub name: String,
    /// Free text for others.
    pub metadata: String,
    /// Key-value pairs for others.
    pub attributes: BTreeMap<String, String>,
    /// The room the grant is for.
    pub room: Option<RoomName>,
    /// May join `room`; see [`Grant::room_to_join`].
    pub room_join: bool,
    /// May create rooms.
    pub room_create: bool,
    /// May list rooms.
    pub room_list: bool,
    /// May control `room`.
    pub room_admin: bool,
    /// When the token was made, as far as it says: its `nbf`, else its `iat`. Time since 1970.
    pub issued: Option<Duration>,
    /// What the participant may do. `hidden` is only set when the configuration allows it.
    pub permissions: Permissions,
    /// For what call of Matrix it was made, if for one.
    pub matrix: Option<MatrixCall>,
}

/// What we note in the tokens of Matrix users. It is nobody's business but ours, and the holder
/// knows it already; so a restart forgets nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MatrixCall {
    /// May open the room of the call; not any other, and not delete one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
    /// The membership it depends on, where that is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<Member>,
}

/// Somebody in a Matrix room.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// The Matrix room.
    pub room: String,
    /// The user's id.
    pub user: String,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Private(self.user.as_str()).fmt(f)
    }
}

/// Why a token is refused. Never says what was in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Longer than the limit; not read.
    TooLong,
    /// Not a token.
    Malformed,
    /// Signed in a way we don't accept.
    Algorithm,
    /// Unknown key or wrong signature.
    Unauthentic,
    /// Its time is over, or it never had an end.
    Expired,
    /// Its time has not come.
    TooEarly,
    /// A claim is of the wrong type, twice there, too long or has a NUL in it.
    Claims,
    /// Nobody is named.
    IdentityMissing,
    /// It doesn't allow to join a room.
    JoinNotAllowed,
    /// Its holder was removed from the room after it was made.
    Revoked,
    /// Its holder is not in the Matrix room it was made for any more.
    NoMember,
}

/// Checks tokens against the API keys.
pub struct Verifier {
    keys: HashMap<String, DecodingKey>,
    decoy: DecodingKey,
    validation: Validation,
    bounds: Bounds,
    hidden_allowed: bool,
}

/// Bytes.
struct Bounds {
    token: usize,
    identity: usize,
    name: usize,
    metadata: usize,
    attributes: usize,
}

/// All claims of a token. Every one may be absent or null.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claims {
    iss: Option<String>,
    sub: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    exp: Option<Number>,
    nbf: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<Number>,
    name: Option<String>,
    metadata: Option<String>,
    attributes: Option<BTreeMap<String, String>>,
    video: Option<VideoClaims>,
    #[serde(skip_serializing_if = "Option::is_none")]
    matrix: Option<MatrixCall>,
}

/// The `video` claim.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct VideoClaims {
    room: Option<String>,
    room_join: Option<bool>,
    room_create: Option<bool>,
    room_list: Option<bool>,
    room_admin: Option<bool>,
    can_publish: Option<bool>,
    can_subscribe: Option<bool>,
    can_publish_data: Option<bool>,
    can_publish_sources: Option<Vec<String>>,
    can_update_own_metadata: Option<bool>,
    hidden: Option<bool>,
}

/// The one claim that is read before the signature is known to be right.
#[derive(Deserialize)]
struct Issuer {
    iss: Option<String>,
}

impl Grant {
    /// A grant that allows nothing but what every participant may do once in a room.
    pub fn new(identity: Identity) -> Self {
        Self {
            key: String::new(),
            expires: Duration::ZERO,
            identity,
            name: String::new(),
            metadata: String::new(),
            attributes: BTreeMap::new(),
            room: None,
            room_join: false,
            room_create: false,
            room_list: false,
            room_admin: false,
            issued: None,
            matrix: None,
            permissions: Permissions {
                publish: true,
                sources: Vec::new(),
                subscribe: true,
                publish_data: true,
                update_metadata: false,
                hidden: false,
            },
        }
    }

    /// The room this grant allows to join.
    pub fn room_to_join(&self) -> Result<&RoomName, Refused> {
        match &self.room {
            Some(room) if self.room_join => Ok(room),
            _ => Err(Refused::JoinNotAllowed),
        }
    }

    /// The token of this grant from `now`, a time since 1970, for `ttl`.
    pub fn mint(&self, key: &str, secret: &Secret, now: Duration, ttl: Duration) -> String {
        let claims = Claims::of(self, key, now, ttl);
        let claims = serde_json::to_string(&claims).map(|json| for_atob(&json));
        let claims = claims.and_then(RawValue::from_string);
        let claims = claims.expect("texts, numbers and maps of texts are JSON");
        let secret = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &secret)
            .expect("JSON is JSON, and any secret signs HS256")
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("identity", &self.identity)
            .field("room", &self.room)
            .field("permissions", &self.permissions)
            .finish_non_exhaustive()
    }
}

impl Verifier {
    /// A verifier with the keys and limits of `config`.
    pub fn new(config: &Config) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        // Times are checked in `check`, against the caller's clock; the audience is not ours to
        // judge: no issuer of such tokens sets one.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let limits = &config.limits;
        let key = |(name, secret): (&str, &Secret)| {
            (name.to_owned(), DecodingKey::from_secret(secret.as_bytes()))
        };
        Self {
            keys: config.keys.iter().map(key).collect(),
            decoy: DecodingKey::from_secret(DECOY),
            validation,
            bounds: Bounds {
                token: limits.token_bytes.get(),
                identity: limits.identity_bytes.get(),
                name: limits.name_bytes.get(),
                metadata: limits.metadata_bytes.get(),
                attributes: limits.attributes_bytes.get(),
            },
            hidden_allowed: config.rooms.hidden_participants,
        }
    }

    /// What `token` grants at `now`, a time since 1970.
    pub fn check(&self, token: &str, now: Duration) -> Result<Grant, Refused> {
        let claims = self.authentic(token)?;
        timely(&claims, now)?;
        self.grant(claims)
    }

    fn authentic(&self, token: &str) -> Result<Claims, Refused> {
        if token.len() > self.bounds.token {
            return Err(Refused::TooLong);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| Refused::Malformed)?;
        if header.alg != Algorithm::HS256 {
            return Err(Refused::Algorithm);
        }
        let issuer: Issuer = jsonwebtoken::dangerous::insecure_decode_claims(token)
            .map_err(|_| Refused::Malformed)?;
        let known = issuer.iss.and_then(|name| self.keys.get(&name));
        let key = known.unwrap_or(&self.decoy);
        let decoded = jsonwebtoken::decode::<Claims>(token, key, &self.validation);
        if known.is_none() {
            return Err(Refused::Unauthentic);
        }
        decoded
            .map(|data| data.claims)
            .map_err(|error| match error.kind() {
                ErrorKind::Json(_) | ErrorKind::Utf8(_) => Refused::Claims,
                _ => Refused::Unauthentic,
            })
    }

    fn grant(&self, claims: Claims) -> Result<Grant, Refused> {
        let bounds = &self.bounds;
        let video = claims.video.unwrap_or_default();
        let identity = [claims.sub, claims.jti]
            .into_iter()
            .flatten()
            .find(|id| !id.is_empty());
        let identity = plain(identity.unwrap_or_default(), bounds.identity)?;
        let room_join = video.room_join.unwrap_or(false);
        if identity.is_empty() && room_join {
            return Err(Refused::IdentityMissing);
        }
        let room = plain(video.room.unwrap_or_default(), bounds.name)?;
        let metadata = claims.metadata.unwrap_or_default();
        let attributes = claims.attributes.unwrap_or_default();
        let attributes_len: usize = attributes
            .iter()
            .map(|(key, value)| key.len().saturating_add(value.len()))
            .sum();
        if metadata.len() > bounds.metadata || attributes_len > bounds.attributes {
            return Err(Refused::Claims);
        }
        let (publish, sources) = publishing(video.can_publish, video.can_publish_sources);
        let expires = claims.exp.as_ref().and_then(Number::as_f64);
        Ok(Grant {
            key: claims.iss.unwrap_or_default(),
            expires: Duration::try_from_secs_f64(expires.unwrap_or_default()).unwrap_or_default(),
            identity: identity.into(),
            name: plain(claims.name.unwrap_or_default(), bounds.name)?,
            metadata,
            attributes,
            room: (!room.is_empty()).then(|| room.into()),
            room_join,
            room_create: video.room_create.unwrap_or(false),
            room_list: video.room_list.unwrap_or(false),
            room_admin: video.room_admin.unwrap_or(false),
            issued: [claims.nbf, claims.iat].iter().flatten().find_map(time),
            matrix: claims.matrix,
            permissions: Permissions {
                publish,
                sources,
                subscribe: video.can_subscribe.unwrap_or(true),
                publish_data: video.can_publish_data.unwrap_or(true),
                update_metadata: video.can_update_own_metadata.unwrap_or(false),
                hidden: video.hidden.unwrap_or(false) && self.hidden_allowed,
            },
        })
    }
}

impl Claims {
    fn of(grant: &Grant, key: &str, now: Duration, ttl: Duration) -> Self {
        let may = &grant.permissions;
        let seconds = |time: Duration| Some(time.as_secs().into());
        let named = |source: &Source| {
            SOURCES
                .iter()
                .find(|(_, known)| known == source)
                .map(|(name, _)| (*name).to_owned())
        };
        let sources: Vec<_> = may.sources.iter().filter_map(named).collect();
        // An empty list would allow all sources.
        let publish = may.publish && (may.sources.is_empty() || !sources.is_empty());
        Self {
            iss: Some(key.to_owned()),
            sub: Some(grant.identity.as_str().to_owned()),
            jti: None,
            exp: seconds(now.saturating_add(ttl)),
            nbf: seconds(now),
            iat: None,
            name: Some(grant.name.clone()),
            metadata: Some(grant.metadata.clone()),
            attributes: Some(grant.attributes.clone()),
            matrix: grant.matrix.clone(),
            video: Some(VideoClaims {
                room: grant.room.as_ref().map(|room| room.as_str().to_owned()),
                room_join: Some(grant.room_join),
                room_create: Some(grant.room_create),
                room_list: Some(grant.room_list),
                room_admin: Some(grant.room_admin),
                can_publish: Some(publish),
                can_subscribe: Some(may.subscribe),
                can_publish_data: Some(may.publish_data),
                can_publish_sources: Some(sources),
                can_update_own_metadata: Some(may.update_metadata),
                hidden: Some(may.hidden),
            }),
        }
    }
}

impl Refused {
    /// The HTTP status that says so.
    pub fn status(self) -> u16 {
        match self {
            Self::Claims => 400,
            _ => 401,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "invalid token: too long",
            Self::Malformed => "invalid token: malformed",
            Self::Algorithm => "invalid token: only HS256 is accepted",
            // One text for unknown key and wrong signature: neither tells which keys there are.
            Self::Unauthentic => "invalid token: wrong key or signature",
            Self::Expired => "invalid token: expired or without an end",
            Self::TooEarly => "invalid token: not valid yet",
            Self::Claims => "invalid token: a claim is malformed or too long",
            Self::IdentityMissing => "invalid token: no identity",
            Self::Revoked => "invalid token: made before its holder was removed from the room",
            Self::NoMember => "permission denied: not in the Matrix room any more",
            Self::JoinNotAllowed => "permission denied: the token does not allow to join a room",
        })
    }
}

impl std::error::Error for Refused {}

/// A token that says nothing of a participant but carries `claims`: a signature of `key` under
/// them, from `now` for `life`.
pub fn seal(
    key: &str,
    secret: &Secret,
    now: Duration,
    life: Duration,
    mut claims: serde_json::Map<String, serde_json::Value>,
) -> String {
    claims.insert("iss".to_owned(), key.into());
    claims.insert("nbf".to_owned(), now.as_secs().into());
    claims.insert("exp".to_owned(), now.saturating_add(life).as_secs().into());
    let secret = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &secret)
        .expect("texts and numbers are JSON, and any secret signs HS256")
}

/// The same JSON in which only characters are left whose base64url is plain base64 too. Element
/// Call reads its token with `atob`, which throws on the two letters that differ; within ASCII
/// these come from `>`, `?`, `~` and DEL only, and those stand in strings only.
fn for_atob(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '>' | '?' | '~' | '\u{7f}'.. => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(safe, "\\u{unit:04x}");
                }
            }
            c => safe.push(c),
        }
    }
    safe
}

/// A claim that is a time.
fn time(claim: &Number) -> Option<Duration> {
    let seconds = claim.as_f64()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// The token in an `Authorization` header, if it is a bearer token.
pub fn bearer(value: Option<&str>) -> Option<&str> {
    let (scheme, token) = value?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
}

/// Checks the times of a token.
fn timely(claims: &Claims, now: Duration) -> Result<(), Refused> {
    let seconds = now.as_secs_f64();
    let leeway = LEEWAY.as_secs_f64();
    let end = claims.exp.as_ref().and_then(Number::as_f64);
    if end.is_none_or(|end| end + leeway <= seconds) {
        return Err(Refused::Expired);
    }
    let mut starts = [&claims.nbf, &claims.iat].into_iter().flatten();
    if starts.any(|start| start.as_f64().is_none_or(|start| start > seconds + leeway)) {
        return Err(Refused::TooEarly);
    }
    Ok(())
}

/// A text that is not too long and safe to hand to programs that end texts at NUL.
fn plain(text: String, bytes_max: usize) -> Result<String, Refused> {
    if text.len() > bytes_max || text.contains('\0') {
        return Err(Refused::Claims);
    }
    Ok(text)
}

/// Sources narrow the right to publish down. Names we don't know count for nothing, but a list of
/// only those must not turn into the empty list, which allows everything.
fn publishing(publish: Option<bool>, names: Option<Vec<String>>) -> (bool, Vec<Source>) {
    let names = names.unwrap_or_default();
    let listed = |(name, source): &(&str, Source)| {
        names
            .iter()
            .any(|wanted| wanted.eq_ignore_ascii_case(name))
            .then_some(*source)
    };
    let sources: Vec<_> = SOURCES.iter().filter_map(listed).collect();
    let publish = publish.unwrap_or(true) && (names.is_empty() || !sources.is_empty());
    (publish, sources)
}

#[cfg(test)]
#[path = "grant_tests.rs"]
mod tests;
