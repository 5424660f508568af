//! Whose certificates of homeservers are taken: those the host trusts, and one file beside them.
//!
//! Roots are read when something can need them: not for a homeserver at an `http` address.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use crate::config::Matrix;

/// How TLS to homeservers is made. Without any `https` there nothing is read, and nobody trusted.
pub fn tls(config: &Matrix) -> io::Result<ClientConfig> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    if config.skips_verification() {
        return Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
            .with_no_client_auth());
    }
    let mut bases = config.homeservers.values().chain(config.cs_api.values());
    let roots = match config.federation || bases.any(|base| base.is_https()) {
        true => roots(config.extra_ca.as_deref())?,
        false => RootCertStore::empty(),
    };
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// The cryptography that every connection here uses.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The roots of the host and those in `extra`. It is an error if there are none at all.
pub fn roots(extra: Option<&Path>) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    // A file of the host that can't be read, or a root in it, is a root less.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = extra {
        let invalid = |error: String| {
            let message = format!("no certificates in {}: {error}", path.display());
            io::Error::new(io::ErrorKind::InvalidData, message)
        };
        let before = roots.len();
        let file = CertificateDer::pem_file_iter(path).map_err(|e| invalid(e.to_string()))?;
        for certificate in file {
            let certificate = certificate.map_err(|e| invalid(e.to_string()))?;
            roots.add(certificate).map_err(|e| invalid(e.to_string()))?;
        }
        if roots.len() == before {
            return Err(invalid("the file has none".to_owned()));
        }
    }
    match roots.is_empty() {
        true => Err(io::Error::new(
            io::ErrorKind::NotFound,
            "this host trusts no certificate authority; install ca-certificates",
        )),
        false => Ok(roots),
    }
}

/// Takes every certificate, for tests: the holder of its key could still be anyone.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
