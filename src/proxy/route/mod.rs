//! Host and path → route. Pure.
//!
//! A request's first question: which route is it for? [`Table`] is built once per configuration and read by every
//! request without allocating. The most specific host wins, then the longest path. What a route means (a pool, a
//! redirect, limits) is the caller's `T`; this module neither normalises paths nor judges malformed hosts.

mod host;
mod paths;

#[cfg(test)]
mod tests;

use self::paths::Paths;
use crate::config::proxy::HostPattern;

/// Host patterns and path prefixes, most specific first.
///
/// **Hosts.** An exact name beats the longest fitting wildcard, which beats any. If the best host has no fitting path,
/// the next less specific host is asked. `*.example.org` stands for one or more labels: `a.example.org` and
/// `a.b.example.org`, but not `example.org`.
///
/// **Paths.** A prefix fits at segment borders, case matters: `/app` fits `/app` and `/app/x`, not `/apple`; `/app/`
/// fits `/app/` and all below, not `/app` itself; `/` fits every target, also `*` and the empty path. The longest
/// fitting prefix wins. Paths are compared as the client wrote them, without decoding or removing dot segments, because
/// that is what the backend gets: a route decides where a request goes, never whether it is allowed.
#[derive(Debug)]
pub struct Table<T> {
    /// Sorted by name for binary search.
    exact: Vec<Host<T>>,
    /// Sorted by suffix; each with its leading dot.
    wildcards: Vec<Host<T>>,
    any: Paths<T>,
}

#[derive(Debug)]
struct Host<T> {
    /// Lower case, without port, brackets and trailing dot.
    name: String,
    paths: Paths<T>,
}

impl<T> Table<T> {
    /// Builds the table out of (host, path prefix, route), in any order. Of two entries with the same host and path the
    /// first one counts; the configuration refuses such pairs.
    pub fn new(routes: Vec<(HostPattern, String, T)>) -> Self {
        let mut table = Self { exact: Vec::new(), wildcards: Vec::new(), any: Paths::new() };
        for (pattern, path, route) in routes {
            let paths = match pattern {
                HostPattern::Any => &mut table.any,
                HostPattern::Exact(name) => paths_of(&mut table.exact, host::normal(&name)),
                HostPattern::Wildcard(suffix) => paths_of(&mut table.wildcards, host::normal(&suffix)),
            };
            paths.push(path, route);
        }
        for paths in table.exact.iter_mut().chain(&mut table.wildcards).map(|h| &mut h.paths).chain([&mut table.any]) {
            paths.ready();
        }
        table
    }

    /// The route for a request, if there is one.
    ///
    /// `host` is the authority as the client gave it: any case, perhaps with a port and a trailing dot, IPv6 in
    /// brackets. `path` is the path of the target; a query behind it is ignored.
    pub fn find(&self, host: Option<&str>, path: &str) -> Option<&T> {
        let path = memchr::memchr(b'?', path.as_bytes()).map_or(path, |at| &path[..at]);
        if let Some(name) = host.map(host::bare) {
            if let Some(route) = named(&self.exact, name).and_then(|paths| paths.find(path)) {
                return Some(route);
            }
            if !self.wildcards.is_empty() {
                // Leftmost dot first: the longest suffix is the most specific.
                for suffix in host::suffixes(name) {
                    if let Some(route) = named(&self.wildcards, suffix).and_then(|paths| paths.find(path)) {
                        return Some(route);
                    }
                }
            }
        }
        self.any.find(path)
    }
}

/// The paths of a host pattern, made if new; keeps `hosts` sorted.
fn paths_of<T>(hosts: &mut Vec<Host<T>>, name: String) -> &mut Paths<T> {
    let at = match hosts.binary_search_by(|h| host::compare(&h.name, &name)) {
        Ok(at) => at,
        Err(at) => {
            hosts.insert(at, Host { name, paths: Paths::new() });
            at
        }
    };
    &mut hosts[at].paths
}

fn named<'a, T>(hosts: &'a [Host<T>], name: &str) -> Option<&'a Paths<T>> {
    hosts.binary_search_by(|h| host::compare(&h.name, name)).ok().map(|at| &hosts[at].paths)
}
