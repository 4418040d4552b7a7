//! Which certificate answers for which name.
//!
//! Built once per load, asked once per handshake without allocating (unless the name has capitals).

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::pair::Pair;
use super::problem::{Cause, CertificateProblem};

/// Names → pairs. Every list has at most one pair per kind of key, the best first, and is never empty.
#[derive(Debug)]
pub(super) struct Index {
    /// Lower-case names and IP addresses in their canonical text.
    exact: HashMap<Box<str>, Vec<Arc<Pair>>>,
    /// `*.example.org` under `example.org`; stands for exactly one label (RFC 9525 §6.3).
    wildcard: HashMap<Box<str>, Vec<Arc<Pair>>>,
    /// For a name nobody has.
    default: Vec<Arc<Pair>>,
    /// For a client that sends no name, most often because it connected to an IP address.
    nameless: Vec<Arc<Pair>>,
}

impl Index {
    /// Sorts out who answers for what. `pairs` is not empty, sorted by id; losers of a name become warnings.
    pub(super) fn new(pairs: &[Arc<Pair>], now: i64, problems: &mut Vec<CertificateProblem>) -> Self {
        let mut exact: HashMap<Box<str>, Vec<Arc<Pair>>> = HashMap::new();
        let mut wildcard: HashMap<Box<str>, Vec<Arc<Pair>>> = HashMap::new();
        for pair in pairs {
            for name in &pair.names {
                let list = match name.strip_prefix("*.") {
                    Some(suffix) => wildcard.entry(suffix.into()).or_default(),
                    None => exact.entry(name.as_str().into()).or_default(),
                };
                list.push(Arc::clone(pair));
            }
        }
        let mut lost: BTreeMap<(&str, &str), u32> = BTreeMap::new();
        let lists = exact.values_mut().chain(wildcard.values_mut());
        for list in lists {
            let losers = settle(list, now);
            for loser in losers {
                let Some(loser) = pairs.iter().find(|p| Arc::ptr_eq(p, &loser)) else { continue };
                let winner = pairs.iter().find(|p| p.kind == loser.kind && list.iter().any(|w| Arc::ptr_eq(w, p)));
                if let Some(winner) = winner.filter(|w| !w.is_same_as(loser)) {
                    *lost.entry((&loser.id, &winner.id)).or_default() += 1;
                }
            }
        }
        for ((loser, winner), count) in lost {
            let find = |id: &str| pairs.iter().find(|p| &*p.id == id);
            if let (Some(loser), Some(winner)) = (find(loser), find(winner)) {
                let name = loser.names.iter().find(|n| winner.names.contains(n)).cloned().unwrap_or_default();
                let winner = winner.file.clone();
                problems.push(CertificateProblem::new(&loser.file, Cause::DuplicateName { name, count, winner }));
            }
        }
        let default = defaults(pairs, now, |_| true);
        let nameless = defaults(pairs, now, Pair::has_ip_address);
        Self { exact, wildcard, nameless: if nameless.is_empty() { default.clone() } else { nameless }, default }
    }

    /// Never empty; the best first.
    pub(super) fn find(&self, sni: Option<&str>) -> &[Arc<Pair>] {
        let Some(name) = sni else { return &self.nameless };
        let name = name.strip_suffix('.').unwrap_or(name);
        let name: Cow<'_, str> = match name.bytes().any(|b| b.is_ascii_uppercase()) {
            true => name.to_ascii_lowercase().into(),
            false => name.into(),
        };
        let wildcard = || name.split_once('.').and_then(|(_, suffix)| self.wildcard.get(suffix));
        self.exact.get(&*name).or_else(wildcard).unwrap_or(&self.default)
    }

    /// Sorted by name; the earliest end where keys of several kinds answer for it.
    pub(super) fn not_after(&self) -> Vec<(String, i64)> {
        let exact = self.exact.iter().map(|(name, list)| (name.to_string(), list));
        let wildcard = self.wildcard.iter().map(|(suffix, list)| (format!("*.{suffix}"), list));
        let default = self.default.iter().any(|p| p.names.is_empty()).then(|| ("default".to_owned(), &self.default));
        let mut ends: Vec<_> = exact
            .chain(wildcard)
            .chain(default)
            .map(|(name, list)| (name, list.iter().map(|p| p.not_after).min().unwrap_or_default()))
            .collect();
        ends.sort();
        ends
    }
}

/// The default's list: what the folder calls `default`, else, among those that qualify, the first by id. Pairs of one id
/// (a predecessor that was kept) compete like pairs of one name.
fn defaults(pairs: &[Arc<Pair>], now: i64, qualifies: impl Fn(&Pair) -> bool) -> Vec<Arc<Pair>> {
    let named = pairs.iter().find(|p| &*p.id == "default");
    let Some(first) = named.or_else(|| pairs.iter().find(|p| qualifies(p))) else { return Vec::new() };
    let mut list: Vec<_> = pairs.iter().filter(|p| p.id == first.id).cloned().collect();
    settle(&mut list, now);
    list
}

/// Best first, one per kind of key; returns who lost. Usable before unusable, then the kind that costs least to sign
/// with, then the one valid longest, then by id so that the outcome never depends on the order of a folder.
fn settle(list: &mut Vec<Arc<Pair>>, now: i64) -> Vec<Arc<Pair>> {
    list.sort_by_key(|p| (!p.is_usable(now), p.kind, -p.not_after, Arc::clone(&p.id)));
    let mut seen = Vec::with_capacity(1);
    let mut losers = Vec::new();
    list.retain(|pair| {
        let is_first = !seen.contains(&pair.kind);
        if is_first {
            seen.push(pair.kind)
        } else {
            losers.push(Arc::clone(pair))
        }
        is_first
    });
    losers
}
