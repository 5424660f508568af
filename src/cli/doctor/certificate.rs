//! The certificate at the public address: whether browsers take it, and for how long.
//!
//! How long is asked of the very verifier that checks chains: what would it say later?

use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use stellwerk::matrix::trust;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{CertificateError, Error};

use super::finding::{Finding, Id};
use super::scene::{NO_URL, SET_URL, Scene};
use super::visit::Unreached;
use crate::cli::unix_now;

/// Renewal is late when less is left: Let's Encrypt's clients renew when a month is.
const DAYS_LEFT_MIN: u64 = 14;

const CONNECT_TIME: Duration = Duration::from_secs(5);
const DAY: Duration = Duration::from_secs(86_400);

const RENEW: &str = "Renew the certificate, let that happen by itself, and reload the proxy \
    afterwards.";
const CHAIN: &str = "Let the proxy send the whole chain of a certificate that browsers trust, or \
    name its authority in matrix.extra_ca if all clients know it.";
const NAME: &str = "Get a certificate for this very host name.";

/// The certificate of the proxy.
pub async fn check(scene: &Scene) -> Finding {
    let id = Id::Certificate;
    let uri: Option<Uri> = scene.signalling.as_ref().and_then(|url| url.parse().ok());
    let Some(uri) = uri else {
        return id.skipped(NO_URL, SET_URL);
    };
    if uri.scheme_str() != Some("https") {
        return id.warning(
            "the public address is not encrypted, and browsers give no camera to such pages",
            "Put a TLS proxy in front, and write matrix.url with wss.",
        );
    }
    match handshake(scene, &uri).await {
        Ok(chain) => judge(scene, &uri, &chain),
        Err(Unreached::Tls(error)) => refused(&error),
        Err(why) => id.failure(
            format!("the public address {why}"),
            "Let the proxy listen there and DNS point to it.",
        ),
    }
}

async fn handshake(scene: &Scene, uri: &Uri) -> Result<Vec<CertificateDer<'static>>, Unreached> {
    let host = host(uri);
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|_| Unreached::Address(host.to_owned()))?;
    let connecting = async {
        let port = uri.port_u16().unwrap_or(443);
        let tcp = TcpStream::connect((host, port)).await;
        let tcp = tcp.map_err(Unreached::Connection)?;
        let connector = TlsConnector::from(Arc::clone(&scene.visitor.tls));
        let stream = connector.connect(name, tcp).await;
        let stream = stream.map_err(Unreached::tls)?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        Ok(chain.iter().map(|it| it.clone().into_owned()).collect())
    };
    let done = timeout(CONNECT_TIME, connecting).await;
    done.map_err(|_| Unreached::Timeout).flatten()
}

fn host(uri: &Uri) -> &str {
    let host = uri.host().unwrap_or_default();
    host.trim_start_matches('[').trim_end_matches(']')
}

/// How long a chain that is taken now will be.
fn judge(scene: &Scene, uri: &Uri, chain: &[CertificateDer<'static>]) -> Finding {
    let id = Id::Certificate;
    let roots = trust::roots(scene.config.matrix.extra_ca.as_deref());
    let verifier = roots.ok().and_then(|roots| {
        let builder =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), trust::provider());
        builder.build().ok()
    });
    let name = ServerName::try_from(host(uri)).ok();
    let (Some(verifier), Some(name), Some((first, rest))) = (verifier, name, chain.split_first())
    else {
        return id.ok("the certificate is trusted");
    };
    let now = unix_now();
    let taken_in = |days: u64| {
        let then = now + DAY * u32::try_from(days).unwrap_or(u32::MAX);
        let then = UnixTime::since_unix_epoch(then);
        verifier.verify_server_cert(first, rest, &name, &[], then)
    };
    match taken_in(DAYS_LEFT_MIN) {
        Ok(_) => id.ok(format!(
            "the certificate is trusted, and will be for {DAYS_LEFT_MIN} days at least"
        )),
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            let left = Duration::from_secs(not_after.as_secs()).saturating_sub(now);
            let days = left.as_secs() / DAY.as_secs();
            id.warning(format!("the certificate ends in {days} days"), RENEW)
        }
        Err(error) => id.warning(
            format!("the certificate will not be trusted: {error}"),
            RENEW,
        ),
    }
}

fn refused(error: &Error) -> Finding {
    let id = Id::Certificate;
    match error {
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => id.failure("the certificate has ended", RENEW),
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => id.failure("the certificate is for another name", NAME),
        // The second: another authority by the same name.
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => id.failure(
            "the certificate comes from an authority that this host doesn't trust, or without its \
             intermediate ones",
            CHAIN,
        ),
        error => id.failure(format!("TLS fails: {error}"), CHAIN),
    }
}
