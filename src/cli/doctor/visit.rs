//! One request over a connection of its own, and why there is no answer, in words.
//!
//! Other clients here keep to themselves why they fail, because strangers would learn from it;
//! an operator has to.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, HOST, HeaderMap, HeaderValue};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig};

/// How long an exchange may take: longer than the daemon takes to refuse a join.
const TOTAL_TIME: Duration = Duration::from_secs(6);

/// Bytes of an answer.
const BODY_BYTES: usize = 256 << 10;

/// Asks.
#[derive(Clone)]
pub struct Visitor {
    pub tls: Arc<ClientConfig>,
}

/// What is asked. It may hold a token, so it can't be printed.
pub struct Question {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// An answer.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The connection, if it was upgraded.
    pub upgraded: Option<Upgraded>,
}

/// Why there is none. Prints as what follows "it".
#[derive(Debug)]
pub enum Unreached {
    Address(String),
    Name(String),
    Connection(io::Error),
    Tls(rustls::Error),
    Http,
    Timeout,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Question {
    pub fn new(method: Method, uri: Uri) -> Self {
        Self {
            method,
            uri,
            headers: HeaderMap::new(),
            body: Vec::new(),
        }
    }

    /// With a header; one that can't be sent is left out.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::try_from(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// With what proves to the server who asks.
    pub fn token(mut self, token: &str) -> Self {
        if let Ok(mut value) = HeaderValue::try_from(format!("Bearer {token}")) {
            value.set_sensitive(true);
            self.headers.insert(AUTHORIZATION, value);
        }
        self
    }

    pub fn body(mut self, body: Vec<u8>) -> Self {
        self.body = body;
        self
    }
}

impl Visitor {
    /// Asks once.
    pub async fn ask(&self, question: Question) -> Result<Answer, Unreached> {
        let answer = timeout(TOTAL_TIME, self.exchange(question)).await;
        answer.map_err(|_| Unreached::Timeout).flatten()
    }

    async fn exchange(&self, question: Question) -> Result<Answer, Unreached> {
        let stream = self.connect(&question.uri).await?;
        let handshake = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|_| Unreached::Http)?;
        // It ends with its connection, which ends with the answer or what it was upgraded to.
        tokio::spawn(connection.with_upgrades());
        let path = question.uri.path_and_query();
        let path = path.map_or("/", |path| path.as_str());
        let mut request = Request::builder().method(question.method).uri(path);
        if let Some(headers) = request.headers_mut() {
            *headers = question.headers;
            let host = question.uri.authority().map_or("", |host| host.as_str());
            let host = HeaderValue::try_from(host);
            headers.insert(HOST, host.map_err(|_| Unreached::Http)?);
        }
        let request = request.body(Full::from(question.body));
        let request = request.map_err(|_| Unreached::Http)?;
        let response = sender.send_request(request).await;
        let mut response = response.map_err(|_| Unreached::Http)?;
        let (status, headers) = (response.status(), response.headers().clone());
        if status == StatusCode::SWITCHING_PROTOCOLS {
            let upgraded = hyper::upgrade::on(&mut response).await;
            return Ok(Answer {
                status,
                headers,
                body: Bytes::new(),
                upgraded: Some(upgraded.map_err(|_| Unreached::Http)?),
            });
        }
        let body = Limited::new(response.into_body(), BODY_BYTES).collect();
        Ok(Answer {
            status,
            headers,
            body: body.await.map_err(|_| Unreached::Http)?.to_bytes(),
            upgraded: None,
        })
    }

    async fn connect(&self, uri: &Uri) -> Result<Box<dyn Stream>, Unreached> {
        let host = uri.host().unwrap_or_default();
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found = tokio::net::lookup_host((bare, port)).await;
        let found = found.map_err(|_| Unreached::Name(host.to_owned()))?;
        let mut tried = Err(Unreached::Name(host.to_owned()));
        for address in found {
            tried = TcpStream::connect(address)
                .await
                .map_err(Unreached::Connection);
            if tried.is_ok() {
                break;
            }
        }
        let tcp = tried?;
        if !secure {
            return Ok(Box::new(tcp));
        }
        let name = ServerName::try_from(bare.to_owned());
        let name = name.map_err(|_| Unreached::Address(host.to_owned()))?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(name, tcp).await.map_err(Unreached::tls)?;
        Ok(Box::new(stream))
    }
}

impl Answer {
    /// Its JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The Matrix error code.
    pub fn errcode(&self) -> String {
        let body = self.json();
        let code = body.get("errcode").and_then(Value::as_str);
        code.unwrap_or_default().to_owned()
    }

    pub fn says(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.body).contains(text)
    }

    /// Who may read it, each header on its own.
    pub fn origins(&self) -> Vec<String> {
        let found = self.headers.get_all(ACCESS_CONTROL_ALLOW_ORIGIN).iter();
        let found = found.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        found.collect()
    }

    /// The program that answered, as far as it says so.
    pub fn server(&self) -> String {
        let server = self.headers.get("server").and_then(|it| it.to_str().ok());
        server.map_or_else(String::new, |server| format!(" by {server}"))
    }
}

impl Unreached {
    pub fn tls(error: io::Error) -> Self {
        let inner = error.get_ref().and_then(|it| it.downcast_ref());
        match inner {
            Some(tls) => Self::Tls(rustls::Error::clone(tls)),
            None => Self::Connection(error),
        }
    }
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(host) => write!(f, "can't be reached: {host:?} is no host name"),
            Self::Name(host) => write!(f, "can't be reached: DNS has no address of {host}"),
            Self::Connection(error) => write!(f, "can't be reached: {error}"),
            Self::Tls(error) => write!(f, "can't be trusted: {error}"),
            Self::Http => f.write_str("doesn't answer as a web server"),
            Self::Timeout => write!(f, "doesn't answer within {} s", TOTAL_TIME.as_secs()),
        }
    }
}
