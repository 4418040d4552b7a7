//! What can be wrong with a certificate or its key, in words, with what to do about it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// One thing wrong with one file. `Display` is the message with the file; the remedy is apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateProblem {
    /// The certificate, the key or the folder.
    pub file: PathBuf,
    /// What is wrong.
    pub cause: Cause,
}

/// Whether a problem keeps a pair from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The pair is not used; a start or reload should be refused.
    Refused,
    /// The pair is used, or was not meant as one.
    Warning,
}

/// What is wrong. Times are seconds since 1970; positions count from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The folder itself cannot be listed.
    #[error("the folder cannot be read: {0}")]
    FolderUnreadable(String),
    /// No pair, and no other problem that would explain it.
    #[error("the folder holds no certificate")]
    NothingHere,
    /// More files or pairs than the bound.
    #[error("the folder holds more than {0} certificates or files")]
    TooMany(usize),
    /// The operating system refused.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// Larger than 1 MiB.
    #[error("is larger than 1 MiB, so it is no certificate or key")]
    TooLarge,
    /// A device, pipe or socket.
    #[error("is not a regular file")]
    NotAFile,
    /// DER instead of PEM.
    #[error("is a certificate in binary form (DER)")]
    NotPem,
    /// PEM sections are missing or of other kinds.
    #[error("has no certificate in it")]
    NoCertificate,
    /// A private key under a name that promises a certificate.
    #[error("holds a private key but no certificate")]
    OnlyAKey,
    /// A section that cannot be read.
    #[error("certificate {position} in it is malformed: {why}")]
    Malformed {
        /// Which section.
        position: usize,
        /// As the parser says it.
        why: String,
    },
    /// No file beside it holds its key, nor does it itself.
    #[error("has no key: neither the file itself nor `{looked_for}` holds one")]
    NoKey {
        /// Names that would do.
        looked_for: String,
    },
    /// The key's file has no section with a private key.
    #[error("has no private key in it")]
    NoPrivateKey,
    /// The key needs a passphrase.
    #[error("the private key is encrypted")]
    KeyEncrypted,
    /// Not RSA of 2048 to 4096 bits, P-256, P-384 or Ed25519.
    #[error("the private key is of a kind that cannot be used: {0}")]
    KeyUnsupported(String),
    /// The certificate has another public key.
    #[error("does not belong to the certificate in `{}`", certificate.display())]
    KeyMismatch {
        /// The file with the certificate.
        certificate: PathBuf,
    },
    /// Others than owner and group may read or write the key.
    #[error("holds a private key that everybody on this machine can get at (mode {mode:04o})")]
    KeyOpen {
        /// Permission bits.
        mode: u32,
    },
    /// The chain is upside down or shuffled: the key belongs to a later certificate.
    #[error("the chain is in the wrong order: the key belongs to certificate {position}, which must be the first")]
    LeafNotFirst {
        /// Where the leaf is.
        position: usize,
    },
    /// A link of the chain does not fit the one before it.
    #[error("the chain is out of order: certificate {position} did not issue certificate {}", position - 1)]
    ChainOrder {
        /// The one that does not fit.
        position: usize,
    },
    /// Served, because an old certificate is better than a closed door.
    #[error("has expired at {}", time(*since))]
    Expired {
        /// `notAfter`.
        since: i64,
    },
    /// An intermediate has expired.
    #[error("certificate {position} of the chain has expired at {}", time(*since))]
    ChainExpired {
        /// Which one.
        position: usize,
        /// `notAfter`.
        since: i64,
    },
    /// Clients will refuse it until then.
    #[error("is not valid before {}", time(*from))]
    NotYetValid {
        /// `notBefore`.
        from: i64,
    },
    /// No subjectAltName: only clients that are 20 years behind accept it.
    #[error("has no subject alternative name, so browsers refuse it")]
    NoAlternativeName,
    /// Another pair answers for the name.
    #[error("is not used for `{name}`{}: `{}` is valid longer", others(*count), winner.display())]
    DuplicateName {
        /// One of the names.
        name: String,
        /// How many names were lost to this winner.
        count: u32,
        /// The file that is used.
        winner: PathBuf,
    },
    /// The group could replace the key.
    #[error("holds a private key that its group can write (mode {mode:04o})")]
    KeyGroupWritable {
        /// Permission bits.
        mode: u32,
    },
    /// A key nobody asked for.
    #[error("is a key without a certificate beside it")]
    KeyAlone,
    /// A bundle of CA certificates; it is no pair and was left out.
    #[error("holds only CA certificates and has no key beside it: left out")]
    OnlyAuthorities,
    /// A reload found an expired certificate where a valid one was in use.
    #[error("has expired; the valid certificate it would replace stays in use")]
    PredecessorKept,
}

impl CertificateProblem {
    pub(super) fn new(file: &Path, cause: Cause) -> Self {
        Self { file: file.to_owned(), cause }
    }

    /// Whether the pair is used all the same.
    pub fn severity(&self) -> Severity {
        match self.cause {
            Cause::ChainOrder { .. }
            | Cause::Expired { .. }
            | Cause::ChainExpired { .. }
            | Cause::NotYetValid { .. }
            | Cause::NoAlternativeName
            | Cause::DuplicateName { .. }
            | Cause::KeyGroupWritable { .. }
            | Cause::KeyAlone
            | Cause::OnlyAuthorities
            | Cause::PredecessorKept => Severity::Warning,
            _ => Severity::Refused,
        }
    }

    /// What to do about it, as an instruction.
    pub fn remedy(&self) -> String {
        let file = self.file.display();
        match &self.cause {
            Cause::FolderUnreadable(_) => "name a folder that exists and that this user may list".into(),
            Cause::NothingHere => "put `NAME.crt` (the chain, leaf first) and `NAME.key` into it, or a folder with \
                                   `fullchain.pem` and `privkey.pem`"
                .into(),
            Cause::TooMany(_) => "keep certificates in a folder of their own, or spread them over listeners".into(),
            Cause::Unreadable(_) => "let the user this process runs as read it".into(),
            Cause::TooLarge | Cause::NotAFile => "put only PEM files into this folder".into(),
            Cause::NotPem => format!("convert it: openssl x509 -inform der -in {file} -out {file}.crt"),
            Cause::NoCertificate => "it must hold `-----BEGIN CERTIFICATE-----`; move other files elsewhere".into(),
            Cause::OnlyAKey => "call it `NAME.key` and put its certificate beside it as `NAME.crt`".into(),
            Cause::Malformed { .. } => "copy the certificate again from where it was issued".into(),
            Cause::NoKey { looked_for } => format!("put its private key beside it as `{looked_for}`"),
            Cause::NoPrivateKey => "it must hold `-----BEGIN PRIVATE KEY-----` (or `RSA`, or `EC`)".into(),
            Cause::KeyEncrypted => format!("decrypt it: openssl pkey -in {file} -out NAME.key, then chmod 0600"),
            Cause::KeyUnsupported(_) => "use RSA with 2048 to 4096 bits, ECDSA P-256 or P-384, or Ed25519".into(),
            Cause::KeyMismatch { .. } => {
                "put the key there that the certificate was requested with, or request a new certificate".into()
            }
            Cause::KeyOpen { .. } => format!("chmod 0600 {file} (or 0640, if a group needs it)"),
            Cause::KeyGroupWritable { .. } => format!("chmod 0640 {file}"),
            Cause::LeafNotFirst { .. } | Cause::ChainOrder { .. } => {
                "order it: the server's certificate first, then each one's issuer".into()
            }
            Cause::Expired { .. } | Cause::ChainExpired { .. } | Cause::PredecessorKept => "renew it".into(),
            Cause::NotYetValid { .. } => "check this machine's clock, or wait".into(),
            Cause::NoAlternativeName => "request it again with a subjectAltName".into(),
            Cause::DuplicateName { .. } => "remove one of the two".into(),
            Cause::KeyAlone => "put its certificate beside it with the same name, or remove the key".into(),
            Cause::OnlyAuthorities => "if it is the server's own, self-signed, put its key beside it as `NAME.key`; \
                                       else nothing needs to be done"
                .into(),
        }
    }
}

impl fmt::Display for CertificateProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.file.display(), self.cause)
    }
}

fn time(unix_s: i64) -> String {
    let since_1970 = Duration::from_secs(u64::try_from(unix_s).unwrap_or_default());
    match UNIX_EPOCH.checked_add(since_1970) {
        // RFC 3339 ends with the year 9999, and so does X.509 (RFC 5280 §4.1.2.5).
        Some(at) if unix_s < 253_402_300_800 => humantime::format_rfc3339_seconds(at).to_string(),
        _ => "the end of time".to_owned(),
    }
}

fn others(count: u32) -> String {
    match count {
        0 | 1 => String::new(),
        n => format!(" and {} more", n - 1),
    }
}
