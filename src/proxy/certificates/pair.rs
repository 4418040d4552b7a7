//! One chain with its key: read, parsed, checked against each other.

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::SignatureAlgorithm;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::load::Candidate;
use super::problem::{Cause, CertificateProblem};

/// Bytes of a certificate or key file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A certificate that can be served.
#[derive(Debug)]
pub(super) struct Pair {
    /// Unique in a folder, except for `x.crt` beside `x.pem`.
    pub(super) id: Arc<str>,
    /// Where the chain was read from.
    pub(super) file: PathBuf,
    /// Lower case, without trailing dot; `*.` in front of a wildcard; IP addresses in canonical text. Sorted.
    pub(super) names: Vec<String>,
    /// Seconds since 1970.
    pub(super) not_before: i64,
    /// Seconds since 1970.
    pub(super) not_after: i64,
    pub(super) kind: Kind,
    pub(super) key: Arc<CertifiedKey>,
}

/// Kinds of key, cheapest to sign with first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Ecdsa,
    /// After ECDSA, because no browser knows it.
    Ed25519,
    Rsa,
}

impl Pair {
    pub(super) fn is_expired(&self, now: i64) -> bool {
        self.not_after < now
    }

    pub(super) fn is_usable(&self, now: i64) -> bool {
        self.not_before <= now && !self.is_expired(now)
    }

    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.key.cert.first() == other.key.cert.first()
    }

    pub(super) fn shares_a_name_with(&self, other: &Self) -> bool {
        self.names.iter().any(|name| other.names.binary_search(name).is_ok())
    }

    pub(super) fn has_ip_address(&self) -> bool {
        self.names.iter().any(|name| name.parse::<IpAddr>().is_ok())
    }
}

/// Reads one candidate. `None`: it cannot be served; `problems` says why.
pub(super) fn read(candidate: &Candidate, now: i64, problems: &mut Vec<CertificateProblem>) -> Option<Pair> {
    let mut warnings = Vec::new();
    match try_read(candidate, now, &mut warnings) {
        Ok(pair) => {
            problems.append(&mut warnings);
            Some(pair)
        }
        // What else might be noted about a pair that is not used would only distract.
        Err(problem) => {
            problems.push(problem);
            None
        }
    }
}

fn try_read(
    candidate: &Candidate,
    now: i64,
    warnings: &mut Vec<CertificateProblem>,
) -> Result<Pair, CertificateProblem> {
    let file = &candidate.certificate;
    let at_file = |cause| CertificateProblem::new(file, cause);
    let contents = Contents::read(file).map_err(at_file)?;
    let chain = chain(&contents).map_err(at_file)?;
    let parsed = parse(&chain).map_err(at_file)?;

    let beside = match &candidate.key {
        Some(key) => Some((key, Contents::read(key).map_err(|cause| CertificateProblem::new(key, cause))?)),
        None => None,
    };
    if beside.is_none() && !contents.has_key() {
        return Err(at_file(match parsed.iter().all(|c| c.is_ca()) {
            true => Cause::OnlyAuthorities,
            false => Cause::NoKey { looked_for: candidate.looked_for.clone() },
        }));
    }
    if contents.has_key() {
        contents.check_mode(file, warnings)?;
    }
    let (key_file, key) = match &beside {
        Some((key_file, key)) => {
            key.check_mode(key_file, warnings)?;
            (*key_file, key)
        }
        None => (file, &contents),
    };
    let signing_key = key.signing_key().map_err(|cause| CertificateProblem::new(key_file, cause))?;

    if let Some(public) = signing_key.public_key() {
        // Compared here and not by rustls' `keys_match`, which also refuses X.509 v1; those are still about.
        match parsed.iter().position(|c| c.public_key().raw == public.as_ref()) {
            Some(0) => (),
            Some(at) => return Err(at_file(Cause::LeafNotFirst { position: at + 1 })),
            None => {
                return Err(CertificateProblem::new(key_file, Cause::KeyMismatch { certificate: file.clone() }));
            }
        }
    }
    let kind = match signing_key.algorithm() {
        SignatureAlgorithm::ECDSA => Kind::Ecdsa,
        SignatureAlgorithm::ED25519 => Kind::Ed25519,
        _ => Kind::Rsa,
    };
    let names = names(&parsed[0]);
    warnings.extend(doubts(&parsed, now).into_iter().map(at_file));
    let validity = parsed[0].validity();
    let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    Ok(Pair {
        id: Arc::clone(&candidate.id),
        file: file.clone(),
        names,
        not_before,
        not_after,
        kind,
        key: Arc::new(CertifiedKey::new(chain.clone(), signing_key)),
    })
}

/// A file's bytes and permission bits, taken from the same open file.
struct Contents {
    bytes: Vec<u8>,
    mode: u32,
}

impl Contents {
    fn read(path: &Path) -> Result<Self, Cause> {
        let unreadable = |e: std::io::Error| Cause::Unreadable(e.to_string());
        // Asked before opening: to open a pipe would wait for its writer.
        if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(Cause::NotAFile);
        }
        let file = File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        match bytes.len() as u64 > FILE_BYTES_MAX {
            true => Err(Cause::TooLarge),
            false => Ok(Self { bytes, mode }),
        }
    }

    fn has(&self, text: &str) -> bool {
        memchr::memmem::find(&self.bytes, text.as_bytes()).is_some()
    }

    fn has_key(&self) -> bool {
        self.has("PRIVATE KEY-----")
    }

    /// Nobody but owner and group may touch a key. A group that may read it is common and meant (`ssl-cert`); one that
    /// may write it is doubtful, but that is what a umask of 002 gives.
    fn check_mode(&self, path: &Path, warnings: &mut Vec<CertificateProblem>) -> Result<(), CertificateProblem> {
        let mode = self.mode;
        if mode & 0o007 != 0 {
            return Err(CertificateProblem::new(path, Cause::KeyOpen { mode }));
        }
        if mode & 0o020 != 0 {
            warnings.push(CertificateProblem::new(path, Cause::KeyGroupWritable { mode }));
        }
        Ok(())
    }

    fn signing_key(&self) -> Result<Arc<dyn rustls::sign::SigningKey>, Cause> {
        // Both ways to encrypt a PEM key say so: `BEGIN ENCRYPTED PRIVATE KEY` and `Proc-Type: 4,ENCRYPTED`.
        if self.has("ENCRYPTED") {
            return Err(Cause::KeyEncrypted);
        }
        let key = match PrivateKeyDer::from_pem_slice(&self.bytes) {
            Ok(key) => key,
            Err(rustls_pki_types::pem::Error::NoItemsFound) => return Err(Cause::NoPrivateKey),
            Err(error) => return Err(Cause::KeyUnsupported(error.to_string())),
        };
        rustls::crypto::ring::sign::any_supported_type(&key).map_err(|e| Cause::KeyUnsupported(e.to_string()))
    }
}

/// The certificates in the order of the file; never empty.
fn chain(contents: &Contents) -> Result<Vec<CertificateDer<'static>>, Cause> {
    let mut chain = Vec::new();
    for section in CertificateDer::pem_slice_iter(&contents.bytes) {
        let position = chain.len() + 1;
        chain.push(section.map_err(|e| Cause::Malformed { position, why: e.to_string() })?);
    }
    match chain.is_empty() {
        false => Ok(chain),
        true if X509Certificate::from_der(&contents.bytes).is_ok() => Err(Cause::NotPem),
        true if contents.has_key() => Err(Cause::OnlyAKey),
        true => Err(Cause::NoCertificate),
    }
}

fn parse<'a>(chain: &'a [CertificateDer<'static>]) -> Result<Vec<X509Certificate<'a>>, Cause> {
    let parse = |(at, der): (usize, &'a CertificateDer<'static>)| match X509Certificate::from_der(der) {
        Ok((_, certificate)) => Ok(certificate),
        Err(error) => Err(Cause::Malformed { position: at + 1, why: error.to_string() }),
    };
    chain.iter().enumerate().map(parse).collect()
}

/// What deserves a warning and no more.
fn doubts(chain: &[X509Certificate<'_>], now: i64) -> Vec<Cause> {
    let mut doubts = Vec::new();
    let leaf = &chain[0];
    let (from, since) = (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
    if since < now {
        doubts.push(Cause::Expired { since });
    }
    if from > now {
        doubts.push(Cause::NotYetValid { from });
    }
    if alternative_names(leaf).is_empty() {
        doubts.push(Cause::NoAlternativeName);
    }
    for (at, pair) in chain.windows(2).enumerate() {
        let position = at + 2;
        if pair[0].issuer().as_raw() != pair[1].subject().as_raw() {
            doubts.push(Cause::ChainOrder { position });
        }
        let since = pair[1].validity().not_after.timestamp();
        if since < now {
            doubts.push(Cause::ChainExpired { position, since });
        }
    }
    doubts
}

/// Names the certificate answers for. Only without any alternative name the common name counts, as it did before
/// RFC 2818; browsers ignore it, some tools do not.
fn names(leaf: &X509Certificate<'_>) -> Vec<String> {
    let mut names = alternative_names(leaf);
    if names.is_empty() {
        names.extend(leaf.subject().iter_common_name().filter_map(|cn| cn.as_str().ok()).filter_map(dns_name));
    }
    names.sort();
    names.dedup();
    names
}

fn alternative_names(leaf: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = leaf.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => dns_name(name),
        GeneralName::IPAddress(octets) => ip_address(octets),
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect()
}

/// As the index wants it; `None`: not a host name, or a wildcard other than one whole first label (RFC 9525 §6.3).
fn dns_name(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let rest = name.strip_prefix("*.").unwrap_or(&name);
    let is_name = !rest.is_empty()
        && name.len() <= 253
        && rest.split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        });
    is_name.then_some(name)
}

fn ip_address(octets: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(octets).map(IpAddr::from);
    v4.or(v6).ok().map(|address| address.to_string())
}
