//! Joins by query parameters: the older signalling, with two peer connections.
//!
//! What newer clients put into a join request, these write into the URL, each value as text. A
//! value we can't read counts as absent, as it does for LiveKit: an old client has no other way to
//! join. `disable_ice_lite` is not acted on: we are always lite.

use std::collections::BTreeMap;

use axum::extract::Query;
use axum::http::{HeaderMap, Uri};
use base64::Engine;
use livekit_protocol as proto;
use serde::Deserialize;

use super::client::client;
use super::join::{Admission, BASE64URL, Refused, Stay, participant_sid, user_agent};
use crate::config;
use crate::ids::Identity;
use crate::signal::grant::{self, Grant};

/// Attributes of a participant, as in a join request.
const ATTRIBUTES_MAX: usize = 1000;

#[derive(Deserialize)]
struct Parameters {
    auto_subscribe: Option<String>,
    adaptive_stream: Option<String>,
    subscriber_allow_pause: Option<String>,
    reconnect: Option<String>,
    sid: Option<String>,
    publish: Option<String>,
    attributes: Option<String>,
    protocol: Option<String>,
    client_protocol: Option<String>,
    capabilities: Option<String>,
    browser: Option<String>,
    os: Option<String>,
}

/// What the query of `uri` asks for, within `grant`.
pub(super) fn admission(
    uri: &Uri,
    headers: &HeaderMap,
    mut admission: Admission,
    limits: &config::Limits,
) -> Result<Admission, Refused> {
    let Query(asked) = Query::<Parameters>::try_from_uri(uri).map_err(|_| Refused::Query)?;
    admission.two_connections = true;
    admission.resume = is_set(asked.reconnect.as_deref()).then(|| Stay {
        sid: participant_sid(asked.sid.unwrap_or_default()),
    });
    admission.auto_subscribe = asked.auto_subscribe.is_none_or(|text| is_set(Some(&text)));
    admission.adaptive_stream = is_set(asked.adaptive_stream.as_deref());
    let may_pause = asked.subscriber_allow_pause.as_deref();
    let may_pause = may_pause.filter(|text| !text.is_empty());
    admission.may_pause = may_pause.map(|text| is_set(Some(text)));
    let info = proto::ClientInfo {
        protocol: number(asked.protocol.as_deref()),
        client_protocol: number(asked.client_protocol.as_deref()),
        capabilities: capabilities(asked.capabilities.as_deref().unwrap_or_default()),
        browser: asked.browser.unwrap_or_default(),
        os: asked.os.unwrap_or_default(),
        ..Default::default()
    };
    admission.client = client(Some(info), user_agent(headers));
    if let Some(publish) = asked.publish.filter(|publish| !publish.is_empty()) {
        publish_only(&mut admission.grant, &publish, limits)?;
    }
    if let Some(attributes) = asked.attributes.filter(|text| !text.is_empty()) {
        let attributes = read_attributes(&attributes)?;
        admission.describe(String::new(), attributes, limits)?;
    }
    Ok(admission)
}

fn is_set(text: Option<&str>) -> bool {
    matches!(text, Some("1" | "true"))
}

fn number(text: Option<&str>) -> i32 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Numbers of the capabilities whose names are known.
fn capabilities(names: &str) -> Vec<i32> {
    use proto::client_info::Capability;
    let known = names.split(',').filter_map(Capability::from_str_name);
    known.map(|capability| capability as i32).collect()
}

/// A connection that some old clients open beside their own, to publish more on it.
fn publish_only(grant: &mut Grant, publish: &str, limits: &config::Limits) -> Result<(), Refused> {
    if !grant.permissions.publish {
        return Err(grant::Refused::JoinNotAllowed.into());
    }
    let identity = format!("{}#{publish}", grant.identity.as_str());
    if identity.len() > limits.identity_bytes.get() {
        return Err(Refused::TooLong);
    }
    if identity.contains('\0') {
        return Err(Refused::Query);
    }
    grant.identity = Identity::from(identity);
    grant.permissions.subscribe = false;
    Ok(())
}

/// A JSON object of texts, in base64url.
fn read_attributes(text: &str) -> Result<BTreeMap<String, String>, Refused> {
    let json = BASE64URL.decode(text).map_err(|_| Refused::Query)?;
    let attributes: BTreeMap<_, _> = serde_json::from_slice(&json).map_err(|_| Refused::Query)?;
    if attributes.len() > ATTRIBUTES_MAX {
        return Err(Refused::Query);
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    fn read(query: &str, change: impl FnOnce(&mut Grant)) -> Result<Admission, Refused> {
        let config = Config::load(&Sources::default()).unwrap().config;
        let mut grant = Grant::new("anna".into());
        change(&mut grant);
        let uri = Uri::try_from(format!("/rtc?access_token=x&{query}")).unwrap();
        let admission = Admission::new("red".into(), true, grant);
        super::admission(&uri, &HeaderMap::new(), admission, &config.limits)
    }

    #[test]
    fn what_is_absent_has_the_meaning_it_has_for_old_clients() {
        let admission = read("", |_| ()).unwrap();
        assert!(admission.two_connections && admission.auto_subscribe);
        assert!(admission.resume.is_none() && !admission.adaptive_stream);
        let query = "auto_subscribe=0&adaptive_stream=true&reconnect=1&sid=PA_a\
                     &protocol=9&client_protocol=x&unknown=1&disable_ice_lite=1\
                     &capabilities=CAP_PACKET_TRAILER,CAP_FUTURE";
        let admission = read(query, |_| ()).unwrap();
        assert!(!admission.auto_subscribe && admission.adaptive_stream);
        assert_eq!(admission.resume.unwrap().sid, Some("PA_a".into()));
        assert_eq!(
            (admission.client.protocol, admission.client.client_protocol),
            (9, 0)
        );
        assert_eq!(admission.client.capabilities, [1]);
    }

    #[test]
    fn pausing_is_allowed_refused_or_not_spoken_of() {
        for (query, expected) in [
            ("subscriber_allow_pause=1", Some(true)),
            ("subscriber_allow_pause=0", Some(false)),
            ("subscriber_allow_pause=", None),
            ("", None),
        ] {
            assert_eq!(read(query, |_| ()).unwrap().may_pause, expected, "{query}");
        }
    }

    #[test]
    fn a_connection_to_publish_has_a_name_of_its_own_and_receives_nothing() {
        let admission = read("publish=screen", |_| ()).unwrap();
        assert_eq!(admission.grant.identity.as_str(), "anna#screen");
        assert!(!admission.grant.permissions.subscribe);
        let refused = read("publish=screen", |grant| grant.permissions.publish = false);
        assert_eq!(
            refused.map(|_| ()),
            Err(grant::Refused::JoinNotAllowed.into())
        );
        let long = format!("publish={}", "x".repeat(256));
        assert_eq!(read(&long, |_| ()).map(|_| ()), Err(Refused::TooLong));
        assert_eq!(read("publish=%00", |_| ()).map(|_| ()), Err(Refused::Query));
    }

    #[test]
    fn attributes_are_taken_from_who_may_change_them() {
        let attributes = BASE64URL.encode(r#"{"a":"b","empty":""}"#);
        let query = format!("attributes={attributes}");
        let admission = read(&query, |grant| grant.permissions.update_metadata = true).unwrap();
        assert_eq!(
            admission.grant.attributes,
            BTreeMap::from([("a".into(), "b".into())])
        );
        let admission = read(&query, |_| ()).unwrap();
        assert!(admission.grant.attributes.is_empty());
        for broken in ["attributes=*", "attributes=AAAA"] {
            assert_eq!(
                read(broken, |_| ()).map(|_| ()),
                Err(Refused::Query),
                "{broken}"
            );
        }
    }
}
