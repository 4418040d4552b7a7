//! TLS towards backends: whom we trust and which name we expect. Verification cannot be switched off.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::proxy::UpstreamTls;
use crate::proxy::stream::Socket;

/// How a pool's backends are dialled by TLS. Cheap to clone.
#[derive(Clone)]
pub struct UpstreamTlsConfig {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl UpstreamTlsConfig {
    /// Reads whom we trust: the file of the settings, else the system's roots (`SSL_CERT_FILE`, `SSL_CERT_DIR`, or where
    /// the distribution keeps them). A backend's own certificate in the file is accepted if it does not call itself a CA;
    /// webpki refuses a server that presents a CA's certificate. Blocks on the file system.
    ///
    /// # Errors
    /// [`UpstreamTlsError`].
    pub fn load(settings: &UpstreamTls) -> Result<Self, UpstreamTlsError> {
        let name = ServerName::try_from(settings.server_name.clone())
            .map_err(|_| UpstreamTlsError::ServerName(settings.server_name.clone()))?;
        let roots = match &settings.ca_file {
            Some(file) => {
                let mut roots = RootCertStore::empty();
                for (at, certificate) in read(file)?.into_iter().enumerate() {
                    roots.add(certificate).map_err(|source| UpstreamTlsError::Malformed {
                        file: file.clone(),
                        position: at + 1,
                        source,
                    })?;
                }
                roots
            }
            None => system_roots()?,
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(UpstreamTlsError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }

    pub(super) async fn handshake(&self, socket: Socket) -> io::Result<TlsStream<Socket>> {
        self.connector.connect(self.name.clone(), socket).await
    }
}

impl std::fmt::Debug for UpstreamTlsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamTlsConfig").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why the settings cannot be turned into a configuration.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamTlsError {
    /// The file with CA certificates.
    #[error("`{}` cannot be read", file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Larger than 4 MiB.
    #[error("`{}` is larger than 4 MiB, so it is no list of CA certificates", .0.display())]
    TooLarge(PathBuf),
    /// No PEM section with a certificate.
    #[error("`{}` has no certificate in it (PEM, `-----BEGIN CERTIFICATE-----`)", .0.display())]
    NoCertificate(PathBuf),
    /// A section that cannot be read as PEM.
    #[error("`{}` is not PEM: {why}", file.display())]
    NotPem {
        /// Which file.
        file: PathBuf,
        /// As the parser says it.
        why: String,
    },
    /// A section that is no certificate.
    #[error("certificate {position} in `{}` is malformed", file.display())]
    Malformed {
        /// Which file.
        file: PathBuf,
        /// From 1.
        position: usize,
        /// What rustls said.
        source: rustls::Error,
    },
    /// Neither a DNS name nor an IP address.
    #[error("`{0}` is not a name a certificate could have")]
    ServerName(String),
    /// The system has none.
    #[error("this system has no root certificates: install `ca-certificates`, or set `tls.ca_file`")]
    NoRoots,
    /// The system's cannot be read.
    #[error("the system's root certificates cannot be read")]
    SystemRoots(#[source] io::Error),
    /// rustls refused its own defaults.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// Bytes of a CA file; Mozilla's whole list has 0.25 MiB.
const FILE_BYTES_MAX: u64 = 4 << 20;

fn read(file: &Path) -> Result<Vec<CertificateDer<'static>>, UpstreamTlsError> {
    let unreadable = |source| UpstreamTlsError::Unreadable { file: file.to_owned(), source };
    if !std::fs::metadata(file).map_err(unreadable)?.is_file() {
        return Err(unreadable(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    let mut bytes = Vec::new();
    File::open(file).map_err(unreadable)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(UpstreamTlsError::TooLarge(file.to_owned()));
    }
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|e| UpstreamTlsError::NotPem { file: file.to_owned(), why: e.to_string() })?;
    match certificates.is_empty() {
        true => Err(UpstreamTlsError::NoCertificate(file.to_owned())),
        false => Ok(certificates),
    }
}

fn system_roots() -> Result<RootCertStore, UpstreamTlsError> {
    let mut roots = RootCertStore::empty();
    let certificates = rustls_native_certs::load_native_certs().map_err(UpstreamTlsError::SystemRoots)?;
    // Distributions carry old roots in forms that webpki does not read; one of those must not shut out the others.
    let (added, _ignored) = roots.add_parsable_certificates(certificates);
    match added {
        0 => Err(UpstreamTlsError::NoRoots),
        _ => Ok(roots),
    }
}
