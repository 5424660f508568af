//! A call through the public address: one participant speaks, another one has to hear it.
//!
//! Room and participants have names of chance, so that they meet nobody, and the room is deleted
//! afterwards.

use std::time::Duration;

use hyper::Method;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::finding::{Finding, Id};
use super::peer::{Peer, Role, Tried, Trouble};
use super::scene::{Scene, join_request, random_name, uri};
use super::visit::Question;

/// From the first join to the first sound.
const CALL_TIME: Duration = Duration::from_secs(15);

/// Once there is sound, for further addresses to answer: twice what the first checks of all take.
const MORE_TIME: Duration = Duration::from_secs(2);

const LOG: &str = "See in the log of the daemon why.";
const PORTS: &str = "Open these UDP ports in firewalls and forward them to this host, and name in \
    media.addresses only addresses that clients reach; behind a NAT name its address in \
    media.advertise.";
const HAIRPIN: &str = "Run this command on another host: behind a NAT, this one often can't reach \
    the address in media.advertise. If it fails there too, forward these UDP ports to this host.";

/// What came of it.
struct Outcome {
    tried: Vec<Tried>,
    /// Further addresses.
    untried: usize,
    connected: bool,
    /// How long it took, and from where it came.
    heard: Option<(Duration, std::net::SocketAddr)>,
}

/// What is said where no call is tried.
pub fn skipped(cause: &str, remedy: &str) -> Vec<Finding> {
    let ids = [Id::MediaPorts, Id::Call];
    ids.map(|id| id.skipped(cause, remedy)).to_vec()
}

/// The call, and the ports it needs.
pub async fn check(scene: &Scene) -> Vec<Finding> {
    if !scene.config.http.v1 {
        return skipped(
            "the call needs the newer signalling",
            "Set http.v1 to true.",
        );
    }
    let room = random_name();
    let address = |scene: &Scene| {
        let base = scene.signalling.clone().or_else(|| scene.local())?;
        let token = scene.token(&room, |grant| grant.room_create = true)?;
        let query = format!("access_token={token}&join_request={}", join_request());
        uri(&base, &format!("{}?{query}", scene.rtc()))
    };
    let (Some(speaks), Some(hears)) = (address(scene), address(scene)) else {
        return skipped("there is no API key", "Add one under [keys].");
    };
    let outcome = call(scene, speaks, hears).await;
    delete(scene, &room).await;
    match outcome {
        Ok(outcome) => vec![ports(scene, &outcome), judge(scene, &outcome)],
        Err(trouble) => {
            let (cause, remedy) = explain(&trouble);
            vec![
                Id::MediaPorts.skipped("there was no call to try them", "See call."),
                Id::Call.failure(cause, remedy),
            ]
        }
    }
}

async fn call(scene: &Scene, speaks: hyper::Uri, hears: hyper::Uri) -> Result<Outcome, Trouble> {
    let begun = Instant::now();
    let mut speaker = Peer::join(&scene.visitor, speaks, Role::Speaks).await?;
    let mut listener = Peer::join(&scene.visitor, hears, Role::Hears).await?;
    // Each goes on until the end: half a step would lose what had come.
    let speaking = async {
        loop {
            speaker.step().await?;
        }
    };
    let hearing = async {
        while listener.heard.is_none() {
            listener.step().await?;
        }
        let rest = async {
            while listener.tried.iter().any(Tried::is_silent) {
                listener.step().await?;
            }
            Ok(())
        };
        timeout(MORE_TIME, rest).await.unwrap_or(Ok(()))
    };
    let talking = async {
        tokio::select! {
            broken = speaking => broken,
            done = hearing => done,
        }
    };
    timeout(CALL_TIME, talking).await.unwrap_or(Ok(()))?;
    let outcome = Outcome {
        connected: listener.connected,
        heard: listener.heard.map(|(at, from)| (at - begun, from)),
        tried: std::mem::take(&mut listener.tried),
        untried: listener.untried.len(),
    };
    speaker.leave().await;
    listener.leave().await;
    Ok(outcome)
}

/// The room would go by itself in a while; this is only tidier.
async fn delete(scene: &Scene, room: &str) {
    let base = scene.signalling.clone().or_else(|| scene.local());
    let at = base.and_then(|base| uri(&base, "/twirp/livekit.RoomService/DeleteRoom"));
    let token = scene.token(room, |grant| grant.room_create = true);
    if let (Some(at), Some(token)) = (at, token) {
        let question = Question::new(Method::POST, at).token(&token);
        let body = json!({ "room": room }).to_string().into_bytes();
        let question = question
            .header("content-type", "application/json")
            .body(body);
        let _ = scene.visitor.ask(question).await;
    }
}

fn explain(trouble: &Trouble) -> (String, &'static str) {
    match trouble {
        Trouble::Join(why) => {
            let remedy = "Mend what path-validate and upgrade say first.";
            (format!("nobody can join: the address {why}"), remedy)
        }
        Trouble::Refused(status) => (
            format!("a join is answered with {status}"),
            "Mend what path-validate and upgrade say first, or see in the log of the daemon why.",
        ),
        Trouble::Signal => ("signalling broke off in the call".to_owned(), LOG),
        Trouble::Media => ("the daemon's answer is none for WebRTC".to_owned(), LOG),
    }
}

/// Nothing answers, and all that could is before a NAT, where many hosts don't reach themselves.
fn may_be_hairpin(scene: &Scene, outcome: &Outcome) -> bool {
    let advertised = &scene.config.media.advertise;
    let mut tried = outcome.tried.iter();
    !outcome.tried.is_empty() && tried.all(|it| advertised.contains(&it.address.ip()))
}

fn ports(scene: &Scene, outcome: &Outcome) -> Finding {
    let id = Id::MediaPorts;
    let list = |wanted: &dyn Fn(&Tried) -> bool| {
        let found = outcome.tried.iter().filter(|it| wanted(it));
        let found: Vec<String> = found.map(|it| it.address.to_string()).collect();
        (found.len(), found.join(", "))
    };
    let (count, answering) = list(&|it| it.answered);
    let (silent_count, silent) = list(&Tried::is_silent);
    let (far_count, far) = list(&|it| !it.reachable());
    if count == 0 {
        let all = list(&|_| true).1;
        let cause = match all.is_empty() {
            true => "the daemon names no address for media".to_owned(),
            false => format!("no address for media answers: {all}"),
        };
        return match may_be_hairpin(scene, outcome) {
            true => id.warning(cause, HAIRPIN),
            false => id.failure(cause, PORTS),
        };
    }
    if silent_count > 0 {
        let cause = format!("of the addresses for media, {silent} doesn't answer");
        return id.warning(cause, PORTS);
    }
    let more = match outcome.untried {
        0 => String::new(),
        count => format!("; further {count} were not tried"),
    };
    match far_count {
        0 => id.ok(format!("each address for media answers: {answering}{more}")),
        _ => id.ok(format!(
            "{answering} answers; this host has no way to {far}{more}"
        )),
    }
}

fn judge(scene: &Scene, outcome: &Outcome) -> Finding {
    let id = Id::Call;
    match outcome.heard {
        Some((time, from)) => {
            let family = if from.is_ipv4() { "IPv4" } else { "IPv6" };
            let ms = time.as_millis();
            id.ok(format!(
                "sound went through in {ms} ms, by UDP over {family} from {from}"
            ))
        }
        None if outcome.connected => id.failure(
            "the call was connected, but nothing was heard",
            "See in the log of the daemon why, and let UDP through in both directions.",
        ),
        None => {
            let seconds = CALL_TIME.as_secs();
            let cause = format!("media didn't connect within {seconds} s");
            match may_be_hairpin(scene, outcome) {
                true => id.warning(cause, HAIRPIN),
                false => id.failure(cause, PORTS),
            }
        }
    }
}
