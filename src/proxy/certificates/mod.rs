//! Server names → chains and keys; checked before any swap.
//!
//! [`Certificates::load`] reads every pair of a folder and says what is wrong with each. What it returns is
//! immutable; a listener holds it in an `ArcSwap` and asks it once per handshake. It never watches and never swaps:
//! whoever reloads decides with [`Severity`] and [`Certificates::succeed`].

mod index;
mod load;
mod pair;
mod problem;

#[cfg(test)]
pub(crate) mod making;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::sign::CertifiedKey;

use self::index::Index;
use self::pair::Pair;
pub use self::problem::{Cause, CertificateProblem, Severity};

/// The certificates of a folder, by server name. Never empty.
#[derive(Debug)]
pub struct Certificates {
    /// Sorted by id; after [`Certificates::succeed`] with the predecessors that were kept at the end.
    pairs: Vec<Arc<Pair>>,
    index: Index,
    /// When the pairs were judged, seconds since 1970.
    now: i64,
}

impl Certificates {
    /// Reads every pair in a folder; what is a pair is said in `load.rs`.
    ///
    /// `None`: there is no usable pair. A pair with a problem of [`Severity::Refused`] is left out of the result; the
    /// others are in it, so that the caller can decide whether some are better than none. Blocks on the file system.
    pub fn load(folder: &Path, now_unix_s: u64) -> (Option<Self>, Vec<CertificateProblem>) {
        let now = i64::try_from(now_unix_s).unwrap_or(i64::MAX);
        let (pairs, mut problems) = load::folder(folder, now);
        if pairs.is_empty() {
            if problems.iter().all(|p| p.severity() == Severity::Warning) {
                problems.push(CertificateProblem::new(folder, Cause::NothingHere));
            }
            return (None, problems);
        }
        let index = Index::new(&pairs, now, &mut problems);
        (Some(Self { pairs, index, now }), problems)
    }

    /// What a reload puts in place of `previous`: this set, except that a pair which has expired never replaces one
    /// that is still valid. A pair whose files are gone goes. Each predecessor kept is a warning.
    #[must_use]
    pub fn succeed(mut self, previous: &Self) -> (Self, Vec<CertificateProblem>) {
        let expired: Vec<Arc<Pair>> = self.pairs.iter().filter(|p| p.is_expired(self.now)).cloned().collect();
        let mut problems = Vec::new();
        for old in previous.pairs.iter().filter(|p| !p.is_expired(self.now)) {
            let is_here = self.pairs.iter().any(|p| p.is_same_as(old));
            let successor = expired.iter().find(|p| p.id == old.id || p.shares_a_name_with(old));
            if let (false, Some(successor)) = (is_here, successor) {
                problems.push(CertificateProblem::new(&successor.file, Cause::PredecessorKept));
                self.pairs.push(Arc::clone(old));
            }
        }
        if !problems.is_empty() {
            // Duplicates were reported when each set was loaded.
            self.index = Index::new(&self.pairs, self.now, &mut Vec::new());
        }
        (self, problems)
    }

    /// This set, with what `previous` has for pairs that are there but were refused: half a renewal, or one that went
    /// wrong, takes no name away and keeps no other pair from being renewed. Asks the file system what is there.
    #[must_use]
    pub fn with_refused_from(mut self, previous: &Self) -> Self {
        let is_missing = |old: &Arc<Pair>| !self.pairs.iter().any(|p| p.id == old.id) && old.file.exists();
        let kept: Vec<_> = previous.pairs.iter().filter(|old| is_missing(old)).cloned().collect();
        if !kept.is_empty() {
            self.pairs.extend(kept);
            self.index = Index::new(&self.pairs, self.now, &mut Vec::new());
        }
        self
    }

    /// The certificate for a server name (RFC 6066 §3): exact before wildcard before default; `None`: the client sent
    /// no name. Where a name has keys of several kinds, the one we prefer.
    pub fn resolve(&self, sni: Option<&str>) -> Option<Arc<CertifiedKey>> {
        self.index.find(sni).first().map(|p| Arc::clone(&p.key))
    }

    /// As [`Certificates::resolve`], by the kinds of signature the client understands, so that an RSA and an ECDSA pair
    /// of one name can stand side by side.
    pub fn resolve_for(&self, sni: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let candidates = self.index.find(sni);
        let fit = candidates.iter().find(|p| p.key.key.choose_scheme(schemes).is_some());
        fit.or(candidates.first()).map(|p| Arc::clone(&p.key))
    }

    /// When the certificate that answers for each name ends: `(server name, seconds since 1970)`, sorted by name. The
    /// default certificate is there as `default` when it has no name of its own.
    pub fn not_after(&self) -> Vec<(String, i64)> {
        self.index.not_after()
    }

    /// Number of pairs.
    pub fn count(&self) -> usize {
        self.pairs.len()
    }
}
