//! Certificates of one run, and both sides of TLS.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The name everybody has.
pub(crate) const NAME: &str = "localhost";
/// The folder with the proxy's certificate, beside its configuration.
pub(crate) const FOLDER: &str = "certs";
/// The certificate the proxy trusts, in that folder.
pub(crate) const CERTIFICATE: &str = "certs/own.crt";

/// What clients and origins need.
#[derive(Clone)]
pub(crate) struct Tls {
    /// Of clients, for HTTP/1.1.
    pub(crate) http1: TlsConnector,
    /// Of clients, for HTTP/2.
    pub(crate) http2: TlsConnector,
    /// Of origins.
    pub(crate) origin: TlsAcceptor,
}

impl Tls {
    /// Makes one certificate for all and puts it where the proxy finds it.
    ///
    /// # Errors
    /// It cannot be made or written.
    pub(crate) fn new(folder: &Path) -> Result<Self, String> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).map_err(told)?;
        let files = folder.join(FOLDER);
        std::fs::create_dir_all(&files).map_err(told)?;
        let key = files.join("own.key");
        std::fs::write(&key, made.signing_key.serialize_pem()).map_err(told)?;
        // The proxy takes no key that others can read.
        std::fs::set_permissions(&key, Permissions::from_mode(0o600)).map_err(told)?;
        std::fs::write(folder.join(CERTIFICATE), made.cert.pem()).map_err(told)?;
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
        let certificate = made.cert.der();
        let client = |protocol: &[u8]| client(certificate, protocol);
        let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate.clone()], key));
        Ok(Self {
            http1: client(b"http/1.1")?,
            http2: client(b"h2")?,
            origin: TlsAcceptor::from(Arc::new(server.map_err(told)?)),
        })
    }
}

/// The name as TLS wants it.
pub(crate) fn name() -> ServerName<'static> {
    ServerName::try_from(NAME).expect("`localhost` is a name")
}

fn client(certificate: &CertificateDer<'static>, protocol: &[u8]) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).map_err(told)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(told)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn told(error: impl std::fmt::Display) -> String {
    format!("no certificate: {error}")
}
