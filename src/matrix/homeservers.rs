//! Questions to homeservers.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::name::UserId;
use crate::config;

const TIMEOUT: Duration = Duration::from_secs(10);

/// The homeservers that may be asked.
pub struct Homeservers {
    config: config::Matrix,
    client: Client<HttpConnector, Body>,
}

/// Nobody says who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unverified;

/// No answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed;

/// A call of the client-server API.
pub struct Call<'a> {
    /// GET, POST, PUT.
    pub method: Method,
    /// Path and query, escaped.
    pub path_and_query: String,
    /// For the Authorization header.
    pub token: Option<&'a str>,
    /// JSON to send.
    pub body: Option<Value>,
}

/// What came back.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// JSON, null if it was none.
    pub body: Value,
    /// What `Retry-After` or `retry_after_ms` say.
    pub retry_after: Option<Duration>,
}

impl Homeservers {
    /// As configured.
    pub fn new(config: &config::Matrix) -> io::Result<Self> {
        Ok(Self {
            config: config.clone(),
            client: Client::builder(TokioExecutor::new()).build(HttpConnector::new()),
        })
    }

    /// Who holds the OpenID token.
    pub async fn user_of(
        &self,
        server: &str,
        access_token: &str,
        _asker: IpAddr,
    ) -> Result<UserId, Unverified> {
        let token: String = form_urlencoded::byte_serialize(access_token.as_bytes()).collect();
        let path = format!("/_matrix/federation/v1/openid/userinfo?access_token={token}");
        let call = Call {
            method: Method::GET,
            path_and_query: path,
            token: None,
            body: None,
        };
        let answer = self.call(server, call).await.map_err(|_| Unverified)?;
        let sub = answer.body.get("sub").and_then(Value::as_str);
        let user = sub.and_then(UserId::new).ok_or(Unverified)?;
        match user.server() == server && answer.status == 200 {
            true => Ok(user),
            false => Err(Unverified),
        }
    }

    /// A call of the client-server API of `server`.
    pub async fn call(&self, server: &str, call: Call<'_>) -> Result<Answer, Failed> {
        let mut known = self.config.homeservers.iter();
        let (_, base) = known
            .find(|(name, _)| name.as_str() == server)
            .ok_or(Failed)?;
        let base = base.uri().to_string();
        let uri = format!("{}{}", base.trim_end_matches('/'), call.path_and_query);
        let mut request = Request::builder().method(call.method).uri(uri);
        if let Some(token) = call.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = call
            .body
            .map_or(Body::empty(), |body| Body::from(body.to_string()));
        let request = request
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|_| Failed)?;
        let response = tokio::time::timeout(TIMEOUT, self.client.request(request));
        let response = response.await.map_err(|_| Failed)?.map_err(|_| Failed)?;
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(Body::new(response.into_body()), 65536);
        let body = body.await.map_err(|_| Failed)?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let retry_after = body.get("retry_after_ms").and_then(Value::as_u64);
        Ok(Answer {
            status,
            body,
            retry_after: retry_after.map(Duration::from_millis),
        })
    }
}
