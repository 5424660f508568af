//! What this daemon needs of its homeserver: whose a token is, who is in a room, requests passed
//! on, leaves that are sent late, and the same time.

use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::Value;

use super::finding::{Finding, Id};
use super::host::sentence;
use super::proxy::NOT_JSON;
use super::scene::{Scene, uri};
use super::visit::{Answer, Question, Unreached};
use crate::cli::unix_now;

/// Our words to a request without the right `hs_token`.
const NOT_HOMESERVER: &str = "only the homeserver may ask here";

/// Clients that entrust their leave to us schedule it so far ahead.
const DELAY: Duration = Duration::from_secs(3600);

/// Tokens of one side are too early or too late for the other when it is a minute.
const SKEW_MAX: Duration = Duration::from_secs(30);

const NO_SERVER: &str = "no homeserver is configured";
const NAME_SERVER: &str = "Set matrix.homeservers.";
const NO_SERVICE: &str = "this daemon is no application service of the homeserver";
const REGISTER: &str = "Make a registration with `stellwerk matrix registration`, and name it in \
    matrix.registration and app_service_config_files.";
const START: &str = "Start the homeserver, and write in matrix.homeservers where this host \
    reaches it.";
const KNOW: &str = "Name the very file of matrix.registration in app_service_config_files, and \
    restart the homeserver.";

/// Everything about the homeserver. `versions` is what it answers to `/versions`.
pub async fn check(scene: &Scene, versions: &Result<Answer, Unreached>) -> Vec<Finding> {
    let (openid, service, membership, passed_on, delayed) = tokio::join!(
        openid(scene),
        service(scene),
        membership(scene),
        passed_on(scene),
        delayed(scene, versions),
    );
    let reached = reached(scene, versions);
    let clock = clock(versions);
    vec![
        reached, openid, service, membership, passed_on, delayed, clock,
    ]
}

/// `/versions`, which says much and needs no token.
pub async fn versions(scene: &Scene) -> Result<Answer, Unreached> {
    let base = scene.client_api().unwrap_or_default();
    let at = uri(&base, "/_matrix/client/versions");
    let at = at.ok_or_else(|| Unreached::Address(base.clone()))?;
    scene.home.ask(Question::new(Method::GET, at)).await
}

fn reached(scene: &Scene, versions: &Result<Answer, Unreached>) -> Finding {
    let id = Id::Homeserver;
    let Some(base) = scene.client_api() else {
        return id.skipped(NO_SERVER, NAME_SERVER);
    };
    match versions {
        Err(why) => id.failure(format!("{base} {why}"), START),
        Ok(answer) if answer.status == StatusCode::OK && answer.json().is_object() => {
            id.ok(format!("the homeserver answers at {base}"))
        }
        Ok(answer) => id.failure(
            format!(
                "{base} answers {} where a homeserver says its version",
                answer.status
            ),
            "Add client to the resources of this listener, or set matrix.cs_api.",
        ),
    }
}

async fn openid(scene: &Scene) -> Finding {
    let id = Id::UserInfo;
    let path = "/_matrix/federation/v1/openid/userinfo?access_token=doctor";
    let Some(at) = scene.homeserver().and_then(|base| uri(&base, path)) else {
        return id.skipped(NO_SERVER, NAME_SERVER);
    };
    let answer = match scene.home.ask(Question::new(Method::GET, at)).await {
        Ok(answer) => answer,
        Err(why) => return id.failure(format!("the homeserver {why}"), START),
    };
    let remedy = "Add openid to the resources of the listener that matrix.homeservers names, or \
        name the one that has it or federation.";
    match (answer.status, answer.errcode().as_str()) {
        (StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN") => {
            id.ok("the homeserver says whose an OpenID token is")
        }
        (StatusCode::NOT_FOUND, _) => id.failure(
            "the homeserver doesn't say whose an OpenID token is, so nobody gets into a call \
             (OPEN_ID_ERROR)",
            remedy,
        ),
        (status, _) => id.failure(
            format!("the homeserver answers {status} when asked whose an OpenID token is"),
            remedy,
        ),
    }
}

/// Whether the homeserver knows us. It is asked to ping us; without a URL it says that it can't,
/// after it has looked who asks.
async fn service(scene: &Scene) -> Finding {
    let id = Id::Service;
    let registration = match &scene.registration {
        None => return id.skipped(NO_SERVICE, REGISTER),
        Some(Err(problem)) => return id.failure(problem.as_str(), REGISTER),
        Some(Ok(registration)) => registration,
    };
    let path = format!("/_matrix/client/v1/appservice/{}/ping", registration.id);
    let answer = match ask(scene, Method::POST, &path, b"{}").await {
        Ok(answer) => answer,
        Err(finding) => return finding(id),
    };
    match (answer.status, answer.errcode().as_str()) {
        (StatusCode::OK, _) | (StatusCode::BAD_REQUEST, "M_URL_NOT_SET") => {
            match registration.concerns.first() {
                None => id.ok("the homeserver knows this daemon as its application service"),
                Some(concern) => {
                    let (cause, remedy) = concern.split_once("; ").unwrap_or((concern, REGISTER));
                    id.warning(cause, &sentence(remedy))
                }
            }
        }
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => id.failure(
            "the homeserver doesn't know as_token of the registration",
            KNOW,
        ),
        (StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT, _) => id.failure(
            "the homeserver doesn't reach this daemon at url of the registration",
            "Write `url: null`, or an address at which it reaches this daemon.",
        ),
        (status, _) => id.warning(
            format!("the homeserver answers {status} when asked to try its application service"),
            "See in its log why.",
        ),
    }
}

async fn membership(scene: &Scene) -> Finding {
    let id = Id::Membership;
    let (Some(_), Some(server)) = (scene.as_token(), &scene.server) else {
        return id.skipped(NO_SERVICE, REGISTER);
    };
    let escaped = stellwerk::matrix::homeservers::escaped;
    let path = format!(
        "/_matrix/client/unstable/io.element.msc4502/rooms/{}/is_joined?mxid={}",
        escaped(&format!("!doctor:{server}")),
        escaped(&format!("@doctor:{server}"))
    );
    let answer = match ask(scene, Method::GET, &path, b"").await {
        Ok(answer) => answer,
        Err(finding) => return finding(id),
    };
    match answer.status {
        StatusCode::OK if answer.json().get("joined").is_some_and(Value::is_boolean) => {
            id.ok("the homeserver says who is in a room")
        }
        StatusCode::NOT_FOUND => id.failure(
            "the homeserver doesn't say who is in a room, so tokens that need it are refused",
            "Set experimental_features: msc4502_enabled: true in homeserver.yaml.",
        ),
        StatusCode::UNAUTHORIZED => id.failure(
            "the homeserver doesn't know as_token of the registration",
            KNOW,
        ),
        StatusCode::FORBIDDEN => id.failure(
            "the homeserver doesn't let this daemon ask who is in a room",
            "Write io.element.msc4502.scopes into the registration as `stellwerk matrix \
             registration` prints it, and restart the homeserver.",
        ),
        status => id.failure(
            format!("the homeserver answers {status} when asked who is in a room"),
            "See in its log why.",
        ),
    }
}

/// A request for a token that the homeserver passes on to us: a malformed one, which nobody but
/// this daemon refuses in these words.
async fn passed_on(scene: &Scene) -> Finding {
    let id = Id::HomeserverProxy;
    if scene.as_token().is_none() {
        return id.skipped(NO_SERVICE, REGISTER);
    }
    let path = "/_matrix/client/v1/rtc/livekit/get_token";
    let answer = match ask(scene, Method::POST, path, b"doctor").await {
        Ok(answer) => answer,
        Err(finding) => return finding(id),
    };
    match answer.status {
        _ if answer.says(NOT_JSON) => id.ok("the homeserver passes requests for tokens on"),
        _ if answer.says(NOT_HOMESERVER) => id.failure(
            "the homeserver has another hs_token than this daemon",
            "Give both the same registration, and restart both.",
        ),
        StatusCode::NOT_FOUND => id.warning(
            "the homeserver passes no requests for tokens on, so newer clients get none from it",
            "Set experimental_features: msc4512_enabled: true in homeserver.yaml, and write \
             io.element.msc4512.proxy_prefix and proxy_url as `stellwerk matrix registration` \
             prints them.",
        ),
        // Synapse 1.163 says 500 where nobody listens.
        StatusCode::INTERNAL_SERVER_ERROR
        | StatusCode::BAD_GATEWAY
        | StatusCode::GATEWAY_TIMEOUT => id.failure(
            "the homeserver doesn't reach this daemon to pass requests on",
            "Write into io.element.msc4512.proxy_url an address at which it does, and restart it.",
        ),
        status => id.failure(
            format!("a request for a token by the homeserver is answered with {status}"),
            "See in its log, and in that of the daemon, why.",
        ),
    }
}

/// Asks as the application service.
async fn ask(
    scene: &Scene,
    method: Method,
    path: &str,
    body: &[u8],
) -> Result<Answer, impl Fn(Id) -> Finding + use<>> {
    let at = scene.client_api().and_then(|base| uri(&base, path));
    let token = scene.as_token().unwrap_or_default();
    let answer = match at {
        Some(at) => {
            let question = Question::new(method, at).token(token).body(body.to_vec());
            let question = question.header("content-type", "application/json");
            scene.home.ask(question).await
        }
        None => Err(Unreached::Address(path.to_owned())),
    };
    answer.map_err(|why| move |id: Id| id.failure(format!("the homeserver {why}"), START))
}

/// How late an event may be sent: what the homeserver announces, and what it tells users.
async fn delayed(scene: &Scene, versions: &Result<Answer, Unreached>) -> Finding {
    let id = Id::DelayedEvents;
    let remedy = "Set max_event_delay_duration: 24h in homeserver.yaml.";
    let Ok(answer) = versions else {
        return id.skipped("the homeserver doesn't answer", "See homeserver.");
    };
    let json = answer.json();
    let features = json.get("unstable_features");
    if features.and_then(|it| it.get("org.matrix.msc4140")) != Some(&Value::Bool(true)) {
        let cause = "the homeserver has no delayed events, so who vanishes stays in the call for \
            ever";
        return id.failure(cause, remedy);
    }
    let announced = id.ok("the homeserver has delayed events");
    let token = scene.user_token.as_deref().or_else(|| scene.as_token());
    let at = scene.client_api();
    let at = at.and_then(|base| uri(&base, "/_matrix/client/v3/capabilities"));
    let (Some(token), Some(at)) = (token, at) else {
        return announced;
    };
    let Ok(answer) = scene
        .home
        .ask(Question::new(Method::GET, at).token(token))
        .await
    else {
        return announced;
    };
    let json = answer.json();
    let max = json.pointer("/capabilities/org.matrix.msc4140.delayed_events/max_delay_ms");
    let Some(max) = max.and_then(Value::as_u64).map(Duration::from_millis) else {
        return announced;
    };
    if max < DELAY && scene.config.matrix.leaves.is_some() {
        let seconds = max.as_secs();
        let cause = format!(
            "the homeserver takes events {seconds} s ahead at most, and clients that entrust their \
             leave to this daemon schedule it an hour ahead"
        );
        return id.warning(cause, remedy);
    }
    announced
}

fn clock(versions: &Result<Answer, Unreached>) -> Finding {
    let id = Id::Clock;
    let date = versions.as_ref().ok().and_then(|answer| {
        let date = answer.headers.get("date")?.to_str().ok()?;
        let date = httpdate::parse_http_date(date).ok()?;
        date.duration_since(std::time::SystemTime::UNIX_EPOCH).ok()
    });
    let Some(date) = date else {
        return id.skipped(
            "the homeserver doesn't say what time it is",
            "See homeserver.",
        );
    };
    let apart = date.abs_diff(unix_now());
    match apart > SKEW_MAX {
        true => id.warning(
            format!(
                "the clocks of the homeserver and of this host are {} s apart",
                apart.as_secs()
            ),
            "Let both take their time from NTP, for example by systemd-timesyncd or chrony.",
        ),
        false => id.ok("the homeserver and this host have the same time"),
    }
}
