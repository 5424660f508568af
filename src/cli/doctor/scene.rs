//! What all checks look at: the configuration, where the daemon is seen from outside, and who asks.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE;
use hyper::Uri;
use livekit_protocol as proto;
use prost::Message;
use stellwerk::config::{Config, Secret, ServerMap, ServerName};
use stellwerk::ids::Identity;
use stellwerk::matrix::registration::Registration;
use stellwerk::matrix::trust;
use stellwerk::signal::grant::Grant;
use tokio_rustls::rustls::ClientConfig;

use super::visit::Visitor;
use crate::cli::{Failure, from_this_host, unix_now, web_url};

/// What is said where nobody knows where clients come in.
pub const NO_URL: &str = "the public address is not known";
pub const SET_URL: &str = "Set matrix.url to the address clients reach this daemon at.";

/// How long tokens of this command are good.
const TOKEN_TIME: Duration = Duration::from_secs(120);

/// Letters of names that nobody has.
const NAME_LETTERS: usize = 20;

/// What is examined, and what for.
pub struct Scene {
    pub config: Config,
    /// Where clients get tokens, without a slash at the end.
    pub service: Option<String>,
    /// Where clients signal, in the form for HTTP, without a slash at the end.
    pub signalling: Option<String>,
    /// The Matrix server whose clients are looked after.
    pub server: Option<String>,
    /// Of a user of it.
    pub user_token: Option<String>,
    /// Whether a call is tried.
    pub with_call: bool,
    /// As application service, or why it can't be read.
    pub registration: Option<Result<Registration, String>>,
    /// Asks what clients ask; believes the authorities they do, and `extra_ca`.
    pub visitor: Visitor,
    /// Asks homeservers, as the daemon does.
    pub home: Visitor,
}

impl Scene {
    pub fn new(
        config: Config,
        service: Option<String>,
        server: Option<String>,
        user_token: Option<String>,
    ) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::Run(error.to_string());
        let roots = trust::roots(config.matrix.extra_ca.as_deref()).map_err(failed)?;
        let tls = ClientConfig::builder_with_provider(trust::provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::Run(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let bare = |url: &str| url.trim_end_matches('/').to_owned();
        let url = config.matrix.url.as_ref().map(|url| web_url(url.as_str()));
        let known = config.matrix.homeservers.keys().next();
        let home = trust::tls(&config.matrix).map_err(failed)?;
        Ok(Self {
            service: service.or_else(|| url.clone()).map(|url| bare(&url)),
            signalling: url.map(|url| bare(&url)),
            server: server.or_else(|| known.map(|name| name.as_str().to_owned())),
            user_token,
            with_call: true,
            registration: config
                .matrix
                .registration
                .as_deref()
                .map(Registration::read),
            visitor: Visitor { tls: Arc::new(tls) },
            home: Visitor {
                tls: Arc::new(home),
            },
            config,
        })
    }

    /// Where the daemon listens for this host.
    pub fn local(&self) -> Option<String> {
        let listen = self.config.http.listen.first()?;
        Some(format!("http://{}", from_this_host(*listen)))
    }

    /// Where the daemon asks whose a token is, without a slash at the end.
    pub fn homeserver(&self) -> Option<String> {
        self.base(&self.config.matrix.homeservers)
    }

    /// Where the daemon finds the client-server API.
    pub fn client_api(&self) -> Option<String> {
        let matrix = &self.config.matrix;
        self.base(&matrix.cs_api)
            .or_else(|| self.base(&matrix.homeservers))
    }

    fn base(&self, servers: &ServerMap) -> Option<String> {
        let server = ServerName::new(self.server.as_ref()?)?;
        let base = servers.get(&server)?.uri().to_string();
        Some(base.trim_end_matches('/').to_owned())
    }

    /// With this the daemon asks the homeserver.
    pub fn as_token(&self) -> Option<&str> {
        let registration = self.registration.as_ref()?.as_ref().ok()?;
        Some(registration.as_token.as_str())
    }

    /// The path of signalling.
    pub fn rtc(&self) -> &'static str {
        match self.config.http.v1 {
            true => "/rtc/v1",
            false => "/rtc",
        }
    }

    /// The key that signs tokens for Matrix users, or any.
    fn key(&self) -> Option<(&str, &Secret)> {
        let keys = &self.config.keys;
        match &self.config.matrix.key {
            Some(name) => keys.secret(name).map(|secret| (name.as_str(), secret)),
            None => keys.first(),
        }
    }

    /// A token of the configured key for somebody in `room`.
    pub fn token(&self, room: &str, change: impl FnOnce(&mut Grant)) -> Option<String> {
        let (key, secret) = self.key()?;
        let mut grant = Grant::new(Identity::from(random_name()));
        grant.room = Some(room.into());
        grant.room_join = true;
        change(&mut grant);
        Some(grant.mint(key, secret, unix_now(), TOKEN_TIME))
    }
}

/// A name nobody has, and that says nothing.
pub fn random_name() -> String {
    std::iter::repeat_with(fastrand::alphanumeric)
        .take(NAME_LETTERS)
        .collect()
}

/// What a client says of itself when it joins, as it stands in a URL.
pub fn join_request() -> String {
    let request = proto::JoinRequest {
        connection_settings: Some(proto::ConnectionSettings {
            auto_subscribe: true,
            ..Default::default()
        }),
        ..Default::default()
    };
    let wrapped = proto::WrappedJoinRequest {
        join_request: request.encode_to_vec(),
        ..Default::default()
    };
    BASE64_URL_SAFE.encode(wrapped.encode_to_vec())
}

/// The address of a path below `base`.
pub fn uri(base: &str, path: &str) -> Option<Uri> {
    format!("{base}{path}").parse().ok()
}
