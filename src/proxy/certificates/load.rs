//! Which files of a folder are pairs.
//!
//! | certificate | key |
//! |---|---|
//! | `NAME.crt`, `NAME.pem`, `NAME.cer` | `NAME.key`, `NAME-key.pem`, `NAME.key.pem`, or in the certificate's own file |
//! | `cert.pem` | also `key.pem` |
//! | `fullchain.pem`, here or in a folder `NAME` (certbot's `live/`) | `privkey.pem`; `cert.pem` and `chain.pem` are ignored |
//!
//! Names that begin with a dot are ignored (editors; Kubernetes keeps the files there that it links to). Links are
//! followed. Order never depends on the file system's.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::pair::{self, Pair};
use super::problem::{Cause, CertificateProblem};

/// Pairs of one folder.
const PAIRS_MAX: usize = 10_000;
/// Names of any kind in one folder: a pair has two, certbot's layout five a folder.
const ENTRIES_MAX: usize = 50_000;

/// Two files that belong together, or one that holds both.
pub(super) struct Candidate {
    /// Name without extension, or certbot's folder.
    pub(super) id: Arc<str>,
    pub(super) certificate: PathBuf,
    /// `None`: only the certificate's own file can hold it.
    pub(super) key: Option<PathBuf>,
    /// What the key's file would be called.
    pub(super) looked_for: String,
}

/// Every usable pair, sorted by id, and every problem, in the same order.
pub(super) fn folder(folder: &Path, now: i64) -> (Vec<Arc<Pair>>, Vec<CertificateProblem>) {
    let mut problems = Vec::new();
    let entries = match list(folder) {
        Ok(entries) => entries,
        Err(cause) => return (Vec::new(), vec![CertificateProblem::new(folder, cause)]),
    };
    let mut candidates = candidates(folder, &entries, &mut problems);
    if candidates.len() > PAIRS_MAX {
        problems.push(CertificateProblem::new(folder, Cause::TooMany(PAIRS_MAX)));
        candidates.truncate(PAIRS_MAX);
    }
    let pairs = candidates.iter().filter_map(|c| pair::read(c, now, &mut problems)).map(Arc::new).collect();
    (pairs, problems)
}

/// Name → whether it is a folder; what cannot be told (a dangling link) counts as a file, so that reading it says why.
fn list(folder: &Path) -> Result<BTreeMap<String, bool>, Cause> {
    let unreadable = |e: io::Error| Cause::FolderUnreadable(e.to_string());
    let mut entries = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        if entries.len() == ENTRIES_MAX {
            return Err(Cause::TooMany(ENTRIES_MAX));
        }
        let is_folder = std::fs::metadata(entry.path()).is_ok_and(|m| m.is_dir());
        entries.insert(name, is_folder);
    }
    Ok(entries)
}

/// Sorted by id. Warns of keys that belong to nothing.
fn candidates(
    folder: &Path,
    entries: &BTreeMap<String, bool>,
    problems: &mut Vec<CertificateProblem>,
) -> Vec<Candidate> {
    let mut found = Vec::new();
    let mut orphans: Vec<&str> = Vec::new();
    let is_file = |name: &str| entries.get(name) == Some(&false);
    let is_certbot = is_file(FULL_CHAIN);
    for (name, is_folder) in entries {
        if *is_folder {
            let inner = folder.join(name);
            if inner.join(FULL_CHAIN).exists() {
                found.push(certbot(name, &inner));
            }
        } else if is_certbot && matches!(name.as_str(), FULL_CHAIN | "cert.pem" | "chain.pem" | PRIVATE_KEY) {
            if name == FULL_CHAIN {
                found.push(certbot("fullchain", folder));
            }
        } else if is_key(name) {
            orphans.push(name);
        } else if let Some(stem) = stem(name) {
            let names = key_names(stem);
            let key = names.iter().find(|n| is_file(n)).map(|n| folder.join(n));
            found.push(Candidate {
                id: stem.into(),
                certificate: folder.join(name),
                key,
                looked_for: names[0].clone(),
            });
        }
    }
    let has_taken = |key: &Path| found.iter().any(|c: &Candidate| c.key.as_deref() == Some(key));
    let alone = orphans.iter().map(|name| folder.join(name)).filter(|key| !has_taken(key));
    problems.extend(alone.map(|key| CertificateProblem::new(&key, Cause::KeyAlone)));
    found.sort_by(|a, b| (&a.id, &a.certificate).cmp(&(&b.id, &b.certificate)));
    found
}

const FULL_CHAIN: &str = "fullchain.pem";
const PRIVATE_KEY: &str = "privkey.pem";

fn certbot(id: &str, folder: &Path) -> Candidate {
    let key = folder.join(PRIVATE_KEY);
    Candidate {
        id: id.into(),
        certificate: folder.join(FULL_CHAIN),
        key: key.exists().then_some(key),
        looked_for: PRIVATE_KEY.to_owned(),
    }
}

/// The name without the extension of a certificate; `None`: some other file.
fn stem(name: &str) -> Option<&str> {
    let (stem, extension) = name.rsplit_once('.')?;
    let is_certificate = ["crt", "pem", "cer"].iter().any(|e| extension.eq_ignore_ascii_case(e));
    (is_certificate && !stem.is_empty()).then_some(stem)
}

fn key_names(stem: &str) -> Vec<String> {
    let mut names = vec![format!("{stem}.key"), format!("{stem}-key.pem"), format!("{stem}.key.pem")];
    if stem == "cert" {
        names.push("key.pem".to_owned());
    }
    names
}

/// Names that promise a key and no certificate.
fn is_key(name: &str) -> bool {
    name.ends_with(".key")
        || name.ends_with("-key.pem")
        || name.ends_with(".key.pem")
        || name == "key.pem"
        || name == PRIVATE_KEY
}
