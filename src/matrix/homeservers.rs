//! Questions to homeservers: who holds a token, and calls of their client-server API.
//!
//! Configured homeservers are asked where the configuration says, by `http` too and on loopback.
//! Others only with federation: where discovery finds them on the public internet, by `https`, and
//! in numbers that leave everyone else room (`bulkhead`). What comes back is
//! small or refused. Neither addresses nor names, tokens or answers are ever logged.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::RETRY_AFTER;
use hyper::{Method, StatusCode, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep_until, timeout};

use super::Stats;
use super::bulkhead::{Bounds, Busy, Gate, Strangers};
use super::discovery::{Discovery, Internet, World};
use super::fetch::{
    CONNECT_TIME, Fetcher, Place, Pool, Question, Response, TOTAL_TIME, Trouble, below,
};
use super::name::UserId;
use super::names::Names;
use super::trust;
use crate::config::{Matrix, ServerMap};
use crate::ids::Household;

/// Questions to one configured homeserver at a time, and those that wait: a large meeting that
/// begins has room, and with 10 ms an answer it is through in a second. Further ones fail.
const TURNS: usize = 32;
const WAITING: usize = 2000;

/// Questions about strangers' tokens, each 10 s and 200 KiB at the worst. What one household may
/// have of them is an office behind one address; sixteen such can fill them all, for strangers.
const QUESTIONS: Bounds = Bounds {
    all: 256,
    per_asker: 16,
    turns: 8,
    waiting: 32,
};

/// Calls of strangers' client-server APIs, which only full access leads to. They have nobody who
/// asks, and don't stand in the way of questions.
const CALLS: Bounds = Bounds {
    all: 256,
    per_asker: 256,
    turns: 8,
    waiting: 56,
};

/// Failures about strangers are told when this, or twice this, has passed. A closed port, a silent
/// one, and one with something else behind look alike then: longer than a connection may take.
const FAILURE_TICK: Duration = Duration::from_secs(5);
const _: () = assert!(FAILURE_TICK.as_secs() > CONNECT_TIME.as_secs());

/// Bytes of an OpenID token that is asked about; Synapse's have 18.
pub const TOKEN_BYTES: usize = 2048;

/// The longest wait that a homeserver may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// What stays as it is in a path or a query: what may (RFC 3986, 2.3) but the dot, because dots
/// alone are steps in a path.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');

/// A text as one piece of a path or of a query, whatever is in it.
pub fn escaped(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// Why there is no user. For a count; whoever asked is told one thing only, or could scan ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unverified {
    /// The homeserver doesn't know the token, or doesn't say whose it is.
    Refused,
    /// The homeserver can't be found, may not be asked, or doesn't answer as one.
    Unreachable,
    /// The homeserver took too long.
    Timeout,
    /// The homeserver named a user of another one, another than was claimed, or nobody at all.
    ForeignSub,
    /// The homeserver is none of those whose users may come.
    NotAllowed,
    /// Too many questions are under way.
    Busy,
}

/// Why a call has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// The homeserver is none of those that may be called.
    NotAllowed,
    /// It can't be found, may not be asked, or doesn't answer as one.
    Unreachable,
    /// It took too long.
    Timeout,
    /// Too many calls are under way.
    Busy,
}

/// A call of a client-server API. It holds secrets, so it can't be printed.
pub struct Call<'a> {
    /// The HTTP method.
    pub method: Method,
    /// From the root of the API, as in `/_matrix/client/versions`, its pieces [`escaped`].
    pub path_and_query: String,
    /// The access token.
    pub token: Option<&'a str>,
    /// JSON to send.
    pub body: Option<Value>,
}

/// The answer to a call. Prints as its status.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The JSON that came; null if it was none.
    pub body: Value,
    /// How long the homeserver wants to be left alone.
    pub retry_after: Option<Duration>,
}

/// The homeservers there are for us.
pub struct Homeservers {
    pool: Pool,
    /// Where tokens are asked about.
    openid: HashMap<String, Door>,
    /// Where client-server APIs are.
    client: HashMap<String, Door>,
    /// All others.
    federation: Option<Federation>,
    stats: Arc<Stats>,
}

/// One face of a configured homeserver.
struct Door {
    base: Uri,
    gate: Gate,
}

struct Federation {
    discovery: Discovery<Internet>,
    questions: Strangers,
    calls: Strangers,
}

impl Homeservers {
    /// Those of the configuration. Reads certificates where there is `https`; DNS is left alone
    /// until the first stranger.
    pub fn new(config: &Matrix) -> io::Result<Self> {
        let tls = trust::tls(config)?;
        let mut client = doors(&config.homeservers);
        client.extend(doors(&config.cs_api));
        let internet = || Internet {
            names: Names::default(),
            fetcher: Fetcher::new(&tls),
        };
        Ok(Self {
            openid: doors(&config.homeservers),
            client,
            federation: config.federation.then(|| Federation {
                discovery: Discovery::new(internet()),
                questions: Strangers::new(QUESTIONS),
                calls: Strangers::new(CALLS),
            }),
            pool: Pool::new(tls),
            stats: Arc::default(),
        })
    }

    /// What this came to so far.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// The holder of an OpenID token, a user of exactly `server`, as that server says, and the one
    /// who is `claimed` if somebody is. `asker` is who sent the token.
    pub async fn user_of(
        &self,
        server: &str,
        access_token: &str,
        claimed: Option<&str>,
        asker: Household,
    ) -> Result<UserId, Unverified> {
        let asked = Instant::now();
        let path = format!(
            "/_matrix/federation/v1/openid/userinfo?access_token={}",
            escaped(access_token)
        );
        let question = Question::get(&path);
        let answer = match (self.openid.get(server), &self.federation) {
            _ if access_token.len() > TOKEN_BYTES => Err(Unverified::Refused),
            (Some(door), _) => in_time(self.configured(door, question)).await,
            (None, None) => Err(Unverified::NotAllowed),
            (None, Some(federation)) => in_time(federation.question(server, question, asker)).await,
        };
        let user = answer.and_then(|answer| user(server, claimed, &answer));
        let stranger = !self.openid.contains_key(server) && self.federation.is_some();
        if stranger && user.as_ref().is_err_and(|why| *why != Unverified::Busy) {
            let ticks = asked.elapsed().as_millis() / FAILURE_TICK.as_millis() + 1;
            sleep_until(asked + FAILURE_TICK * ticks.min(2) as u32).await;
        }
        self.stats.asked(&user);
        user
    }

    /// Calls the client-server API of `server`.
    pub async fn call(&self, server: &str, call: Call<'_>) -> Result<Answer, Failed> {
        let question = Question {
            method: call.method,
            path: &call.path_and_query,
            token: call.token,
            body: call.body.map(|body| body.to_string().into_bytes()),
        };
        let response = match (self.client.get(server), &self.federation) {
            (Some(door), _) => in_time(self.configured(door, question)).await,
            (None, Some(federation)) => in_time(federation.call(server, question)).await,
            (None, None) => Err(Failed::NotAllowed),
        };
        self.stats.called(&response);
        response.map(|response| Answer::new(&response))
    }

    /// Whether it is known where the client-server API of `server` is, so that it can be called.
    pub async fn has_client_api(&self, server: &str) -> bool {
        match (self.client.get(server), &self.federation) {
            (Some(_), _) => true,
            (None, Some(federation)) => {
                let looking = federation
                    .calls
                    .visit(server, None, federation.client(server));
                matches!(timeout(TOTAL_TIME, looking).await, Ok(Ok(Some(_))))
            }
            (None, None) => false,
        }
    }

    async fn configured(&self, door: &Door, question: Question<'_>) -> Result<Response, Failed> {
        let _turn = door.gate.turn().await?;
        Ok(self.pool.ask(&door.base, question).await?)
    }
}

impl Federation {
    async fn question(
        &self,
        server: &str,
        question: Question<'_>,
        asker: Household,
    ) -> Result<Response, Failed> {
        let ask = async {
            let place = self.discovery.federation(server).await;
            let place = place.ok_or(Trouble::Unreachable)?;
            self.discovery.world.ask(&place, question).await
        };
        Ok(self.questions.visit(server, Some(asker), ask).await??)
    }

    async fn call(&self, server: &str, question: Question<'_>) -> Result<Response, Failed> {
        let ask = async {
            let found = self.client(server).await;
            let (base, place) = found.ok_or(Trouble::Unreachable)?;
            let uri = below(&base, question.path).ok_or(Trouble::Unreachable)?;
            let path = uri.path_and_query().map_or("/", |path| path.as_str());
            self.discovery
                .world
                .ask(&place, Question { path, ..question })
                .await
        };
        Ok(self.calls.visit(server, None, ask).await??)
    }

    /// The client-server API of a server, and where that is.
    async fn client(&self, server: &str) -> Option<(Uri, Place)> {
        let base = self.discovery.client(server).await?;
        let place = self.discovery.place_of(&base).await?;
        Some((base, place))
    }
}

impl Answer {
    fn new(response: &Response) -> Self {
        let body: Value = serde_json::from_slice(&response.body).unwrap_or_default();
        let header = response.headers.get(RETRY_AFTER);
        let seconds = header.and_then(|value| value.to_str().ok()?.parse().ok());
        // The older way to say it; Synapse has both.
        let millis = || {
            body.get("retry_after_ms")?
                .as_u64()
                .map(Duration::from_millis)
        };
        let retry_after = seconds.map(Duration::from_secs).or_else(millis);
        Self {
            status: response.status.as_u16(),
            retry_after: retry_after.map(|wait| wait.min(RETRY_AFTER_MAX)),
            body,
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({})", self.status)
    }
}

impl fmt::Display for Unverified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the OpenID token could not be verified")
    }
}

impl From<Failed> for Unverified {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::NotAllowed => Self::NotAllowed,
            Failed::Unreachable => Self::Unreachable,
            Failed::Timeout => Self::Timeout,
            Failed::Busy => Self::Busy,
        }
    }
}

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Unreachable => Self::Unreachable,
            Trouble::Timeout => Self::Timeout,
        }
    }
}

impl From<Busy> for Failed {
    fn from(_: Busy) -> Self {
        Self::Busy
    }
}

fn doors(servers: &ServerMap) -> HashMap<String, Door> {
    let door = |url: &crate::config::WebUrl| Door {
        base: url.uri(),
        gate: Gate::new(TURNS, WAITING),
    };
    let servers = servers.iter();
    servers
        .map(|(name, url)| (name.as_str().to_owned(), door(url)))
        .collect()
}

async fn in_time<E: From<Failed>>(
    asking: impl Future<Output = Result<Response, Failed>>,
) -> Result<Response, E> {
    let answer = timeout(TOTAL_TIME, asking).await;
    Ok(answer.map_err(|_| Failed::Timeout).flatten()?)
}

/// Who an answer vouches for. A server can only do so for its own users: else any of them could
/// for anyone (GHSA-rq24-fh66-rq7x).
fn user(server: &str, claimed: Option<&str>, answer: &Response) -> Result<UserId, Unverified> {
    #[derive(Deserialize)]
    struct Holder {
        sub: String,
    }
    if answer.status != StatusCode::OK {
        return Err(Unverified::Refused);
    }
    let holder: Result<Holder, _> = serde_json::from_slice(&answer.body);
    let Holder { sub } = holder.map_err(|_| Unverified::Refused)?;
    UserId::new(&sub)
        .filter(|user| user.server() == server)
        .filter(|user| claimed.is_none_or(|claimed| claimed == user.as_str()))
        .ok_or(Unverified::ForeignSub)
}

#[cfg(test)]
mod tests;
