//! Where the server is, and a WebSocket to it.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_tungstenite::WebSocketStream;
use tungstenite::client::IntoClientRequest;
use tungstenite::error::Error;
use tungstenite::http::{HeaderValue, Uri, header::AUTHORIZATION};

use crate::matrix::trust;

/// A connection for signals.
pub type Socket = WebSocketStream<Box<dyn Stream>>;

/// Plain or encrypted.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Most characters of a refusal that are repeated.
const REFUSAL_MAX: usize = 200;

/// A server's address for signalling.
pub struct Address {
    base: String,
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
}

impl Address {
    /// Reads an address as clients are given it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let wrong = || format!("{url:?} is no address such as wss://example.org");
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let secure = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => return Err(wrong()),
        };
        let host = uri.host().ok_or_else(wrong)?;
        Ok(Self {
            base: url.trim_end_matches('/').to_owned(),
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            tls: secure.then(tls).transpose()?,
        })
    }

    /// Opens a connection and joins by it.
    pub async fn open(&self, token: &str, join_request: &str) -> Result<Socket, String> {
        let unreached =
            |why: &dyn std::fmt::Display| format!("{} can't be reached: {why}", self.base);
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await;
        let tcp = tcp.map_err(|error| unreached(&error))?;
        // Signals are small, and each is waited for.
        let _ = tcp.set_nodelay(true);
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(tcp),
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone());
                let name = name.map_err(|error| unreached(&error))?;
                let connector = TlsConnector::from(Arc::clone(tls));
                let encrypted = connector.connect(name, tcp).await;
                Box::new(encrypted.map_err(|error| unreached(&error))?)
            }
        };
        let url = format!("{}/rtc/v1?join_request={join_request}", self.base);
        let mut request = url
            .into_client_request()
            .map_err(|error| unreached(&error))?;
        let token = HeaderValue::try_from(format!("Bearer {token}"));
        let token = token.map_err(|error| unreached(&error))?;
        request.headers_mut().insert(AUTHORIZATION, token);
        let opened = tokio_tungstenite::client_async(request, stream).await;
        let (socket, _) = opened.map_err(|error| match error {
            Error::Http(answer) => {
                let text = answer.body().as_deref().unwrap_or_default();
                let text = String::from_utf8_lossy(text);
                let text: String = text.trim().chars().take(REFUSAL_MAX).collect();
                format!("the server refuses a join: {} {text}", answer.status())
            }
            error => unreached(&error),
        })?;
        Ok(socket)
    }
}

fn tls() -> Result<Arc<ClientConfig>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("TLS can't be used: {error}");
    let roots = trust::roots(None).map_err(|error| failed(&error))?;
    let config = ClientConfig::builder_with_provider(trust::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_clients() {
        let read = |url| Address::parse(url).map(|it| (it.base, it.host, it.port));
        let plain = read("ws://127.0.0.1:7880/").expect("an address");
        let parts = |base: &str, host: &str, port| (base.to_owned(), host.to_owned(), port);
        assert_eq!(plain, parts("ws://127.0.0.1:7880", "127.0.0.1", 7880));
        let six = read("ws://[::1]/sfu").expect("an address");
        assert_eq!(six, parts("ws://[::1]/sfu", "::1", 80));
        for wrong in ["", "example.org", "http://example.org", "ws://"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
