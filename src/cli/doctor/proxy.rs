//! What reaches the daemon through the public address: every path clients need, the upgrade to
//! WebSocket, and that pages may read the answers.
//!
//! That it is this daemon which answers is seen by its words, and by whether it takes a token of
//! the configured key.

use hyper::header::WWW_AUTHENTICATE;
use hyper::{Method, StatusCode};
use stellwerk::matrix::registration::LEAVES_EXPECTED;
use stellwerk::signal::grant::MatrixCall;

use super::finding::{Finding, Id};
use super::scene::{NO_URL, SET_URL, Scene, join_request, random_name, uri};
use super::visit::{Answer, Question, Unreached};

/// Our words: to a request for a token without a body, to one where tokens are off, to an unknown
/// path, to a join of a room that isn't there, and to one that there is no place for.
pub const NOT_JSON: &str = "the body is not the JSON that belongs here";
const OFF: &str = "there is no such endpoint";
const NO_PATH: &str = "404 page not found";
const NO_ROOM: &str = "requested room does not exist";
const THIS_NODE: &str = "this node is";

const REACH: &str = "Let the proxy listen there and DNS point to it; if only this host can't reach \
    its own public address, run this command on another.";
const DAEMON_DOWN: &str = "Start the daemon, and let the proxy forward to an address of \
    http.listen.";
const RESTART: &str = "Restart the daemon with this configuration, and let the proxy forward to \
    it and nothing else.";
const PREFIX: &str = "Let the proxy take the prefix away, or add it to http.prefixes.";
const UPGRADE: &str = "Let the proxy pass WebSockets on; for nginx: proxy_http_version 1.1, \
    proxy_set_header Upgrade $http_upgrade, proxy_set_header Connection \"upgrade\".";

const LONGER: &str =
    "Let the proxy take longer URLs; for nginx: large_client_header_buffers 4 64k.";

/// Bytes of the URL of a join with an offer of many sections.
const JOIN_BYTES: usize = 16 << 10;

/// Everything about the proxy.
pub async fn check(scene: &Scene) -> Vec<Finding> {
    // All at once: a silent address costs its time only once.
    let (healthz, sfu_get, get_token, delegate, validate, upgrade, long_url, cors) = tokio::join!(
        healthz(scene),
        token_path(scene, Id::SfuGet, "/sfu/get"),
        token_path(scene, Id::GetToken, "/get_token"),
        token_path(scene, Id::Delegate, "/delegate_delayed_leave"),
        validate(scene),
        upgrade(scene),
        long_url(scene),
        cors(scene),
    );
    vec![
        healthz, sfu_get, get_token, delegate, validate, upgrade, long_url, cors,
    ]
}

/// What any path may come to, before it is looked at as what it is.
fn usual(id: Id, path: &str, answer: Result<Answer, Unreached>) -> Result<Answer, Finding> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => return Err(id.failure(format!("the address of {path} {why}"), REACH)),
    };
    let (status, server) = (answer.status, answer.server());
    match status {
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
            let cause = format!("{path} is answered with {status}{server}, not by the daemon");
            Err(id.failure(cause, DAEMON_DOWN))
        }
        // The daemon's own says that it is full, or about to stop.
        StatusCode::SERVICE_UNAVAILABLE if !answer.says(THIS_NODE) => {
            let cause = format!("{path} is answered with {status}{server}, not by the daemon");
            Err(id.failure(cause, DAEMON_DOWN))
        }
        StatusCode::UNAUTHORIZED if answer.headers.contains_key(WWW_AUTHENTICATE) => {
            let cause = format!("{path} is answered with a question for a password{server}");
            let remedy = "Let the proxy ask for none here: tokens are what protects calls.";
            Err(id.failure(cause, remedy))
        }
        _ if answer.says(NO_PATH) => {
            let cause = format!("{path} reaches the daemon under another path, which it lacks");
            Err(id.failure(cause, PREFIX))
        }
        _ => Ok(answer),
    }
}

fn strange(id: Id, path: &str, answer: &Answer) -> Finding {
    let (status, server) = (answer.status, answer.server());
    let remedy = format!("Let the proxy forward {path} to the daemon, as it is.");
    let why = match status {
        StatusCode::NOT_FOUND => "which clients take for a service that is too old",
        _ => "not as this daemon does",
    };
    let cause = format!("{path} is answered with {status}{server}, {why}");
    id.failure(cause, &remedy)
}

async fn healthz(scene: &Scene) -> Finding {
    let id = Id::Healthz;
    let Some(uri) = scene.service.as_ref().and_then(|url| uri(url, "/healthz")) else {
        return id.skipped(NO_URL, SET_URL);
    };
    let answer = scene.visitor.ask(Question::new(Method::GET, uri)).await;
    match usual(id, "/healthz", answer) {
        Err(finding) => finding,
        Ok(answer) if answer.status == StatusCode::OK => id.ok("/healthz is answered"),
        Ok(answer) => strange(id, "/healthz", &answer),
    }
}

async fn token_path(scene: &Scene, id: Id, path: &str) -> Finding {
    if !scene.config.matrix.is_on() {
        return id.skipped(
            "Matrix users get no tokens here",
            "Set matrix.homeservers for calls of Matrix users.",
        );
    }
    let Some(uri) = scene.service.as_ref().and_then(|url| uri(url, path)) else {
        return id.skipped(NO_URL, SET_URL);
    };
    let answer = scene.visitor.ask(Question::new(Method::POST, uri)).await;
    let answer = match usual(id, path, answer) {
        Ok(answer) => answer,
        Err(finding) => return finding,
    };
    let wanted = id != Id::Delegate || scene.config.matrix.leaves.is_some();
    match answer.status {
        StatusCode::BAD_REQUEST if answer.says(NOT_JSON) => {
            id.ok(format!("{path} is answered by the daemon"))
        }
        StatusCode::NOT_FOUND if answer.says(OFF) && wanted => {
            let cause = format!("{path} is answered by a daemon in which it is off");
            id.failure(cause, RESTART)
        }
        StatusCode::NOT_FOUND if answer.says(OFF) && scene.registration.is_some() => {
            let cause = format!("{path} is off, but {LEAVES_EXPECTED}");
            id.warning(cause, "Set matrix.leaves, and restart the daemon.")
        }
        StatusCode::NOT_FOUND if answer.says(OFF) => id.skipped(
            format!("{path} reaches the daemon, which keeps no leaves"),
            "Set matrix.leaves, so that whoever vanishes is out of the call in seconds.",
        ),
        _ => strange(id, path, &answer),
    }
}

/// What `/rtc/v1/validate` is asked with a good token, and so much beside it.
fn validation(scene: &Scene, padding: usize) -> Result<Question, (&'static str, &'static str)> {
    let token = scene.token(&random_name(), |grant| grant.room_create = true);
    let token = token.ok_or(("there is no API key", "Add one under [keys]."))?;
    let path = format!(
        "{}/validate?access_token={token}&join_request={}&doctor={}",
        scene.rtc(),
        join_request(),
        "x".repeat(padding)
    );
    let uri = scene.signalling.as_ref().and_then(|url| uri(url, &path));
    Ok(Question::new(Method::GET, uri.ok_or((NO_URL, SET_URL))?))
}

/// A join carries the client's first offer in its URL.
async fn long_url(scene: &Scene) -> Finding {
    let id = Id::LongUrl;
    let question = match validation(scene, JOIN_BYTES) {
        Ok(question) => question,
        Err((cause, remedy)) => return id.skipped(cause, remedy),
    };
    let bytes = JOIN_BYTES;
    match scene.visitor.ask(question).await {
        Ok(answer) if answer.status == StatusCode::OK => {
            id.ok(format!("a URL of {bytes} bytes reaches the daemon"))
        }
        Ok(answer)
            if matches!(
                answer.status,
                StatusCode::URI_TOO_LONG
                    | StatusCode::BAD_REQUEST
                    | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            ) =>
        {
            let (status, server) = (answer.status, answer.server());
            id.warning(
                format!("a URL of {bytes} bytes is refused with {status}{server}: joins get lost"),
                LONGER,
            )
        }
        _ => id.skipped(
            "shorter URLs don't reach the daemon either",
            "See path-validate.",
        ),
    }
}

async fn validate(scene: &Scene) -> Finding {
    let (id, path) = (Id::Validate, format!("{}/validate", scene.rtc()));
    let question = match validation(scene, 0) {
        Ok(question) => question,
        Err((cause, remedy)) => return id.skipped(cause, remedy),
    };
    let answer = scene.visitor.ask(question).await;
    match usual(id, &path, answer) {
        Err(finding) => finding,
        Ok(answer) if answer.status == StatusCode::OK && answer.says("success") => {
            id.ok(format!("{path} takes a token of the configured key"))
        }
        Ok(answer) if answer.status == StatusCode::UNAUTHORIZED => {
            let cause = format!("{path} is answered by somebody who has another API key");
            id.failure(cause, RESTART)
        }
        Ok(answer) if answer.says(THIS_NODE) => id.failure(
            "the daemon takes no further room: it is full, or about to stop",
            "Raise limits.rooms or limits.participants, or wait until it has restarted.",
        ),
        Ok(answer) => strange(id, &path, &answer),
    }
}

/// Joins a room that isn't there and that the token may not open: the daemon says so only when
/// the request has reached it as a whole WebSocket upgrade. Nobody is in any room afterwards.
async fn upgrade(scene: &Scene) -> Finding {
    let (id, path) = (Id::Upgrade, scene.rtc());
    let token = scene.token(&random_name(), |grant| {
        grant.matrix = Some(MatrixCall::default());
    });
    let Some(token) = token else {
        return id.skipped("there is no API key", "Add one under [keys].");
    };
    let asked = format!(
        "{path}?access_token={token}&join_request={}",
        join_request()
    );
    let Some(uri) = scene.signalling.as_ref().and_then(|url| uri(url, &asked)) else {
        return id.skipped(NO_URL, SET_URL);
    };
    let answer = scene.visitor.ask(websocket(uri)).await;
    let answer = match usual(id, path, answer) {
        Ok(answer) => answer,
        Err(finding) => return finding,
    };
    let server = answer.server();
    match answer.status {
        StatusCode::NOT_FOUND if answer.says(NO_ROOM) => id.ok(format!(
            "an upgrade to WebSocket reaches the daemon at {path}"
        )),
        // What the daemon says to a request that isn't one any more.
        StatusCode::NOT_FOUND if answer.body.is_empty() => {
            let cause = format!("the upgrade to WebSocket at {path} gets lost in the proxy");
            id.failure(cause, UPGRADE)
        }
        status @ (StatusCode::BAD_REQUEST | StatusCode::UPGRADE_REQUIRED) => {
            let cause =
                format!("the upgrade to WebSocket at {path} is refused with {status}{server}");
            id.failure(cause, UPGRADE)
        }
        StatusCode::UNAUTHORIZED => {
            let cause = format!("{path} is answered by somebody who has another API key");
            id.failure(cause, RESTART)
        }
        _ => strange(id, path, &answer),
    }
}

/// An upgrade as browsers ask for it.
pub fn websocket(uri: hyper::Uri) -> Question {
    let key = tungstenite::handshake::client::generate_key();
    Question::new(Method::GET, uri)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", &key)
}

/// Answers of each kind, errors among them: one header each, no more, no less.
async fn cors(scene: &Scene) -> Finding {
    let id = Id::Cors;
    let (Some(service), Some(signalling)) = (&scene.service, &scene.signalling) else {
        return id.skipped(NO_URL, SET_URL);
    };
    let mut asked = vec![(Method::GET, signalling, format!("{}/validate", scene.rtc()))];
    if scene.config.matrix.is_on() {
        for method in [Method::OPTIONS, Method::POST] {
            asked.push((method, service, "/sfu/get".to_owned()));
        }
    }
    let mut seen = 0;
    for (method, base, path) in asked {
        let Some(uri) = uri(base, &path) else {
            continue;
        };
        let question = Question::new(method.clone(), uri).header("origin", origin(scene));
        let question = match method {
            Method::OPTIONS => question.header("access-control-request-method", "POST"),
            _ => question,
        };
        let Ok(answer) = scene.visitor.ask(question).await else {
            break;
        };
        seen += 1;
        let origins = answer.origins();
        let what = format!("the answer to {method} {path}");
        match origins.as_slice() {
            [] => {
                return id.failure(
                    format!("{what} has no Access-Control-Allow-Origin, so no page can read it"),
                    "Let the proxy forward the path and leave the daemon's headers in place, on \
                     errors and on OPTIONS too.",
                );
            }
            [one] if one == "*" || one == origin(scene) => {}
            [one] if !one.contains(',') => {
                return id.failure(
                    format!("{what} allows no other origin than {one}"),
                    "Take Access-Control-Allow-Origin out of the proxy's configuration: the \
                     daemon sends it itself.",
                );
            }
            _ => {
                return id.failure(
                    format!("{what} allows origins twice, which browsers refuse altogether"),
                    "Take Access-Control-Allow-Origin out of the proxy's configuration: the \
                     daemon sends it itself.",
                );
            }
        }
    }
    match seen {
        0 => id.skipped("nothing is answered at the public address", REACH),
        _ => id.ok("each answer allows origins once, errors too"),
    }
}

/// Where a page of a user might come from.
fn origin(scene: &Scene) -> &str {
    let first = scene.config.http.origins.first();
    let first = first.filter(|origin| *origin != "*");
    first.map_or("https://call.example.org", String::as_str)
}
