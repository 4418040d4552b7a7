//! TLS towards backends: whom we trust and which name we expect. Verification cannot be switched off.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

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
    /// the distribution keeps them). A certificate in the file that is no CA, or a self-signed one, is also accepted
    /// when a backend presents exactly it. Blocks on the file system.
    ///
    /// # Errors
    /// [`UpstreamTlsError`].
    pub fn load(settings: &UpstreamTls) -> Result<Self, UpstreamTlsError> {
        let name = ServerName::try_from(settings.server_name.clone())
            .map_err(|_| UpstreamTlsError::ServerName(settings.server_name.clone()))?;
        let (roots, pinned) = match &settings.ca_file {
            Some(file) => {
                let certificates = read(file)?;
                let mut roots = RootCertStore::empty();
                for (at, certificate) in certificates.iter().enumerate() {
                    roots.add(certificate.clone()).map_err(|source| UpstreamTlsError::Malformed {
                        file: file.clone(),
                        position: at + 1,
                        source,
                    })?;
                }
                (roots, certificates)
            }
            None => (system_roots()?, Vec::new()),
        };
        let provider = Arc::new(ring::default_provider());
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|_| UpstreamTlsError::NoRoots)?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(UpstreamTlsError::Tls)?
            // Despite the name of the method: `Verifier` only ever adds the byte-exact comparison.
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { chains, pinned }))
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

/// webpki's verifier, plus what on-premises servers have: a self-signed certificate that calls itself a CA (as `openssl
/// req -x509` makes them), which webpki never accepts as a server's own. Whoever puts that very certificate into
/// `ca_file` trusts it; name, validity and possession of the key are checked all the same.
#[derive(Debug)]
struct Verifier {
    chains: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if !self.pinned.iter().any(|pinned| pinned == end_entity) {
            return self.chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        }
        let malformed = || rustls::Error::InvalidCertificate(CertificateError::BadEncoding);
        let (_, certificate) = X509Certificate::from_der(end_entity).map_err(|_| malformed())?;
        let now = i64::try_from(now.as_secs()).map_err(|_| malformed())?;
        if now < certificate.validity().not_before.timestamp() {
            return Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYet));
        }
        if now > certificate.validity().not_after.timestamp() {
            return Err(rustls::Error::InvalidCertificate(CertificateError::Expired));
        }
        rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}
