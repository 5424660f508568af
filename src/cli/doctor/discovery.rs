//! How clients find this daemon: by what the Matrix server says of itself in public, and by what
//! its homeserver tells its users.
//!
//! Clients write the address into rooms and compare it byte for byte: so do we.

use hyper::{Method, StatusCode};
use serde_json::Value;

use super::finding::{Finding, Id};
use super::scene::{NO_URL, SET_URL, Scene, uri};
use super::visit::{Answer, Question, Unreached};

const WELL_KNOWN: &str = "/.well-known/matrix/client";
const TRANSPORTS: &str = "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports";
const VERSIONS: &str = "/_matrix/client/versions";

/// Redirects that are followed, as clients do.
const REDIRECTS: usize = 3;

const NO_SERVER: &str = "no Matrix server is named";
const NAME_SERVER: &str = "Set matrix.homeservers, or give --server-name.";
const SERVE_JSON: &str = "Serve there, with Content-Type application/json, the text that \
    docs/doctor.md shows.";

/// What experimental features of a homeserver are called: in its answer, in its configuration.
const FEATURES: [(&str, &str); 2] = [
    ("org.matrix.msc4143", "msc4143_enabled"),
    ("org.matrix.msc4354", "msc4354_enabled"),
];

/// Everything about discovery. `versions` is what the homeserver answers to `/versions`.
pub async fn check(scene: &Scene, versions: &Result<Answer, Unreached>) -> Vec<Finding> {
    let (mut findings, transports) = tokio::join!(well_known(scene), transports(scene));
    findings.push(transports);
    findings.push(features(versions));
    findings
}

async fn well_known(scene: &Scene) -> Vec<Finding> {
    let ids = [
        Id::WellKnown,
        Id::WellKnownCors,
        Id::WellKnownFocus,
        Id::BaseUrl,
    ];
    let all = |cause: &str, remedy: &str| ids.map(|id| id.skipped(cause, remedy)).to_vec();
    let Some(server) = &scene.server else {
        return all(NO_SERVER, NAME_SERVER);
    };
    let first = match fetch(scene, server).await {
        Err(why) => {
            let cause = format!("https://{server}{WELL_KNOWN} {why}");
            Err(Id::WellKnown.failure(cause, SERVE_JSON))
        }
        Ok((answer, _)) if answer.status != StatusCode::OK => {
            let (status, by) = (answer.status, answer.server());
            let cause = format!("https://{server}{WELL_KNOWN} is answered with {status}{by}");
            Err(Id::WellKnown.failure(cause, SERVE_JSON))
        }
        Ok((answer, _)) if !answer.json().is_object() => {
            let cause = format!("https://{server}{WELL_KNOWN} is no JSON object");
            Err(Id::WellKnown.failure(cause, SERVE_JSON))
        }
        Ok(found) => Ok(found),
    };
    let (answer, strayed) = match first {
        Ok(found) => found,
        Err(finding) => {
            let cause = "there is no public text of the Matrix server";
            let mut findings = all(cause, SERVE_JSON);
            findings[0] = finding;
            return findings;
        }
    };
    let json = answer.json();
    vec![
        Id::WellKnown.ok(format!("https://{server}{WELL_KNOWN} is JSON")),
        strayed.unwrap_or_else(|| readable(&answer)),
        focus(scene, &json),
        base_url(scene, &json).await,
    ]
}

/// With redirects. Where pages can't follow one of them, that is found too.
async fn fetch(scene: &Scene, server: &str) -> Result<(Answer, Option<Finding>), Unreached> {
    let mut strayed = None;
    let bad = || Unreached::Address(server.to_owned());
    let mut at = uri(&format!("https://{server}"), WELL_KNOWN).ok_or_else(bad)?;
    for _ in 0..REDIRECTS {
        let answer = scene
            .visitor
            .ask(Question::new(Method::GET, at.clone()))
            .await?;
        let location = answer.headers.get("location");
        let location = location.and_then(|to| to.to_str().ok()).unwrap_or_default();
        if !answer.status.is_redirection() || location.is_empty() {
            return Ok((answer, strayed));
        }
        strayed = strayed.or_else(|| stray(&answer, location));
        let base = match location.starts_with('/') {
            true => format!("https://{}", at.authority().map_or("", |it| it.as_str())),
            false => String::new(),
        };
        at = uri(&base, location).ok_or_else(bad)?;
    }
    let answer = scene.visitor.ask(Question::new(Method::GET, at)).await?;
    Ok((answer, strayed))
}

/// Browsers look for the header at each step, and don't leave TLS.
fn stray(redirect: &Answer, location: &str) -> Option<Finding> {
    let id = Id::WellKnownCors;
    if location.starts_with("http:") {
        let cause = format!("{WELL_KNOWN} leads to an address without TLS, where no page goes");
        return Some(id.failure(
            cause,
            "Redirect to https, or serve it where it is asked for.",
        ));
    }
    let open = redirect.origins() == ["*"];
    (!open).then(|| {
        let cause = format!(
            "{WELL_KNOWN} is a redirect without Access-Control-Allow-Origin: *, so no page \
             follows it"
        );
        id.failure(
            cause,
            "Add the header to the redirect as well, or serve it without one.",
        )
    })
}

fn readable(answer: &Answer) -> Finding {
    let id = Id::WellKnownCors;
    match answer.origins().as_slice() {
        [one] if one == "*" => id.ok("pages of every origin may read it"),
        [] => id.failure(
            format!("{WELL_KNOWN} has no Access-Control-Allow-Origin, so no page can read it"),
            "Add the header Access-Control-Allow-Origin: * to this answer.",
        ),
        _ => id.failure(
            format!("{WELL_KNOWN} allows origins otherwise than by one *"),
            "Send the header Access-Control-Allow-Origin: * once.",
        ),
    }
}

fn focus(scene: &Scene, json: &Value) -> Finding {
    let id = Id::WellKnownFocus;
    let Some(service) = &scene.service else {
        return id.skipped(NO_URL, SET_URL);
    };
    let foci = json
        .get("org.matrix.msc4143.rtc_foci")
        .and_then(Value::as_array);
    let remedy = format!(
        "Add \"org.matrix.msc4143.rtc_foci\": [{{\"type\": \"livekit\", \
         \"livekit_service_url\": \"{service}\"}}] to {WELL_KNOWN}."
    );
    let Some(foci) = foci else {
        let cause = "org.matrix.msc4143.rtc_foci is missing, so clients without the newer way find \
            no service (MISSING_MATRIX_RTC_FOCUS)";
        return id.failure(cause, &remedy);
    };
    match first_livekit(foci, "livekit_service_url") {
        None => id.failure(
            "org.matrix.msc4143.rtc_foci has no entry of type livekit",
            &remedy,
        ),
        Some(url) if url == service => id.ok(format!("clients are led to {service}")),
        Some(url) if url.trim_end_matches('/') == service => id.warning(
            format!("clients are led to {url:?}, with a slash more than matrix.url"),
            "Write the same address in all places: clients compare it byte for byte.",
        ),
        Some(url) => id.failure(format!("clients are led to {url:?}, not here"), &remedy),
    }
}

/// Clients take the first.
fn first_livekit<'a>(transports: &'a [Value], field: &str) -> Option<&'a str> {
    let of_type = |it: &&Value| it.get("type").and_then(Value::as_str) == Some("livekit");
    let mut ours = transports.iter().filter(of_type);
    ours.find_map(|it| it.get(field).and_then(Value::as_str))
}

async fn base_url(scene: &Scene, json: &Value) -> Finding {
    let id = Id::BaseUrl;
    let named = json.get("m.homeserver").and_then(|it| it.get("base_url"));
    let Some(base) = named.and_then(Value::as_str) else {
        return id.failure(
            format!("{WELL_KNOWN} doesn't say where the homeserver is"),
            "Add \"m.homeserver\": {\"base_url\": \"https://matrix.example.org\"} to it.",
        );
    };
    let remedy = "Write the address at which clients reach the homeserver, and let its proxy \
        forward /_matrix.";
    let Some(uri) = uri(base.trim_end_matches('/'), VERSIONS) else {
        return id.failure(
            format!("m.homeserver names {base:?}, which is no address"),
            remedy,
        );
    };
    match scene.visitor.ask(Question::new(Method::GET, uri)).await {
        Err(why) => id.failure(format!("m.homeserver names {base}, which {why}"), remedy),
        Ok(answer) if answer.status == StatusCode::OK && answer.json().is_object() => {
            id.ok(format!("the homeserver answers at {base}"))
        }
        Ok(answer) => {
            let cause = format!("m.homeserver names {base}, which answers {}", answer.status);
            id.failure(cause, remedy)
        }
    }
}

/// What the homeserver tells its users, or whether it would.
async fn transports(scene: &Scene) -> Finding {
    let id = Id::Transports;
    let Some(client) = scene.client_api() else {
        return id.skipped(NO_SERVER, NAME_SERVER);
    };
    let Some(at) = uri(&client, TRANSPORTS) else {
        return id.skipped(NO_SERVER, NAME_SERVER);
    };
    let question = Question::new(Method::GET, at);
    let token = scene.user_token.as_deref().or_else(|| scene.as_token());
    let question = match token {
        Some(token) => question.token(token),
        None => question,
    };
    let answer = match scene.home.ask(question).await {
        Ok(answer) => answer,
        Err(why) => return id.failure(format!("the homeserver {why}"), "Start it."),
    };
    match answer.status {
        StatusCode::OK => told(scene, &answer.json()),
        StatusCode::NOT_FOUND => id.failure(
            "the homeserver doesn't tell its users where calls take place",
            "Set experimental_features: msc4143_enabled: true in homeserver.yaml.",
        ),
        StatusCode::UNAUTHORIZED if token.is_none() => id.skipped(
            "only users are told where calls take place",
            "Give --user-token-file, or set matrix.registration.",
        ),
        StatusCode::UNAUTHORIZED => id.warning(
            "the homeserver doesn't take the token, so it doesn't say where calls take place",
            "Give the access token of a user who is logged in with --user-token-file.",
        ),
        status => id.warning(
            format!("the homeserver answers {status} when asked where calls take place"),
            "See in its log why.",
        ),
    }
}

fn told(scene: &Scene, json: &Value) -> Finding {
    let id = Id::Transports;
    let (Some(service), Some(url)) = (&scene.service, &scene.config.matrix.url) else {
        return id.skipped(NO_URL, SET_URL);
    };
    let list = json.get("rtc_transports").and_then(Value::as_array);
    let list = list.map(Vec::as_slice).unwrap_or_default();
    let remedy = format!(
        "Set matrix_rtc.transports in homeserver.yaml to one entry with type: livekit, url: {} \
         and livekit_service_url: {service}; `stellwerk matrix registration` prints it.",
        url.as_str()
    );
    match first_livekit(list, "livekit_service_url") {
        None if first_livekit(list, "url") == Some(url.as_str()) => id.warning(
            "the homeserver tells its users only url, which clients before autumn 2026 don't know",
            &remedy,
        ),
        None => id.failure(
            "the homeserver tells its users of no service for calls",
            &remedy,
        ),
        Some(told) if told == service => id.ok(format!("users are led to {told}")),
        Some(told) => id.failure(format!("users are led to {told:?}, not here"), &remedy),
    }
}

fn features(versions: &Result<Answer, Unreached>) -> Finding {
    let id = Id::Features;
    let Ok(answer) = versions else {
        return id.skipped("the homeserver doesn't answer", "See homeserver.");
    };
    let json = answer.json();
    let has = |name: &str| {
        let features = json.get("unstable_features");
        features.and_then(|it| it.get(name)) == Some(&Value::Bool(true))
    };
    let missing = FEATURES.iter().filter(|(name, _)| !has(name));
    let missing: Vec<String> = missing.map(|(_, key)| format!("{key}: true")).collect();
    match missing.as_slice() {
        [] => id.ok("the homeserver has what newer clients need"),
        missing => {
            let cause = format!("the homeserver is without {}", missing.join(", "));
            let remedy = "Set them under experimental_features in homeserver.yaml; without \
                msc4354 there are no calls in Element Call's mode matrix_2_0.";
            id.warning(cause, remedy)
        }
    }
}
