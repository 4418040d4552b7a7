//! Routes: each leads to a pool that exists, no two are for the same requests, and cookies of pools on one host differ.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::config::default;
use crate::config::file;
use crate::config::host::overlap;
use crate::config::proxy::{HostPattern, Route};
use crate::config::reader::list;
use crate::config::report::nearest;
use crate::config::source::Span;

use super::Site;
use super::pool::{cookie, cookie_name};

/// Every route that is whole.
pub(super) fn routes(file: &file::File, site: &mut Site<'_, '_>) -> Vec<Route> {
    let routes = file.route.elements();
    let answers = |listener: &file::Listener| listener.redirect_to_https.is_missing();
    if file.route.is_missing() && file.listener.elements().iter().any(|listener| answers(listener.get_ref())) {
        let remedy = "add `[[route]]` with the name of a `pool`";
        site.problems.at(&(0..0), "there is no route: every request would be answered by 404", remedy);
    }
    refuse_dangling(file, site);
    refuse_duplicates(routes.iter().map(|route| route.get_ref()), site);
    refuse_shared_cookies(file, site);
    routes.iter().filter_map(|route| build(route.get_ref())).collect()
}

fn build(route: &file::Route) -> Option<Route> {
    let host = host(route)?;
    let path = path(route)?.to_owned();
    Some(Route {
        name: format!("{}{path}", shown(&host)).into(),
        host,
        path,
        pool: route.pool.get()?.0.clone(),
        body_bytes_max: route.body_bytes_max.get().map(|size| size.0),
    })
}

/// `None`: what is written is wrong.
fn host(route: &file::Route) -> Option<HostPattern> {
    if route.host.is_missing() { Some(HostPattern::Any) } else { route.host.get().cloned() }
}

/// As [`host`].
fn path(route: &file::Route) -> Option<&str> {
    if route.path.is_missing() { Some(default::ROUTE_PATH) } else { route.path.get().map(|path| path.0.as_str()) }
}

/// As it may be written in the file.
fn shown(host: &HostPattern) -> String {
    match host {
        HostPattern::Any => "*".to_owned(),
        HostPattern::Exact(name) => name.clone(),
        HostPattern::Wildcard(suffix) => format!("*{suffix}"),
    }
}

fn refuse_dangling(file: &file::File, site: &mut Site<'_, '_>) {
    // Also those that are not whole: the name is there.
    let named = file.pool.elements().iter().filter_map(|pool| pool.get_ref().name.get());
    let known: BTreeSet<&str> = named.clone().map(|name| &**name).collect();
    // A pool whose name could not be read may be the one that is meant.
    let some_unread =
        file.pool.elements().len() > named.count() || !file.pool.is_missing() && file.pool.get().is_none();
    for pool in file.route.elements().iter().filter_map(|route| route.get_ref().pool.spanned()) {
        let name: &str = pool.get_ref();
        if known.contains(name) || some_unread {
            continue;
        }
        let remedy = match nearest(name, known.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None if known.is_empty() => format!("add `[[pool]]` with `name = \"{name}\"`"),
            None => format!("the pools are {}", list(known.iter().copied().take(NAMES_SHOWN))),
        };
        site.problems.at(&pool.span(), format!("no pool named `{name}`"), remedy);
    }
}

/// A remedy lists no more names than a reader can take in.
const NAMES_SHOWN: usize = 20;

fn refuse_duplicates<'r>(routes: impl Iterator<Item = &'r file::Route>, site: &mut Site<'_, '_>) {
    let mut seen: HashMap<(HostPattern, &str), Span> = HashMap::new();
    for route in routes {
        let (Some(host), Some(path)) = (host(route), path(route)) else { continue };
        // The most telling key that is written.
        let span = (route.path.spanned().map(|s| s.span()))
            .or_else(|| route.host.spanned().map(|s| s.span()))
            .or_else(|| route.pool.spanned().map(|s| s.span()))
            .unwrap_or_default();
        let label = format!("{}{path}", shown(&host));
        if let Some(first) = seen.get(&(host.clone(), path)) {
            let remedy = format!("remove one of them; the other is in line {}", site.problems.line(first));
            site.problems.at(&span, format!("two routes are for `{label}`"), remedy);
        } else {
            seen.insert((host, path), span);
        }
    }
}

/// Affinity cookies have `Path=/`, so on one host two pools with one cookie name would overwrite each other's binding at
/// every request.
fn refuse_shared_cookies(file: &file::File, site: &mut Site<'_, '_>) {
    let pools = file.pool.elements();
    let mut by_cookie: HashMap<String, Vec<&file::Pool>> = HashMap::new();
    for pool in pools.iter().map(|pool| pool.get_ref()) {
        if let Some(cookie) = cookie_name(pool) {
            by_cookie.entry(cookie).or_default().push(pool);
        }
    }
    by_cookie.retain(|_, pools| pools.len() > 1);
    if by_cookie.is_empty() {
        return;
    }
    let mut hosts: HashMap<&str, Vec<HostPattern>> = HashMap::new();
    let routes = file.route.elements().iter().map(|route| route.get_ref());
    // A host with a route for `/` never hands a request on to a less specific one.
    let closed: HashSet<HostPattern> =
        routes.clone().filter(|route| path(route) == Some("/")).filter_map(host).collect();
    for route in routes {
        if let (Some(pool), Some(host)) = (route.pool.get(), host(route)) {
            hosts.entry(pool).or_default().push(host);
        }
    }
    let hosts_of =
        |pool: &file::Pool| pool.name.get().and_then(|name| hosts.get(&**name)).map_or(&[][..], Vec::as_slice);
    for (name, sharers) in &by_cookie {
        for (index, pool) in sharers.iter().enumerate() {
            let meets = |other: &&&file::Pool| {
                pool.name.get() != other.name.get() && meet(hosts_of(pool), hosts_of(other), &closed)
            };
            let Some(other) = sharers[..index].iter().find(meets).and_then(|pool| pool.name.get()) else { continue };
            let written = cookie(pool).and_then(|cookie| cookie.name.spanned()).map(|name| name.span());
            let span = written.or_else(|| pool.name.spanned().map(|name| name.span())).unwrap_or_default();
            let message = format!("the affinity cookie `{name}` is also that of pool `{}` on the same host", other.0);
            site.problems.at(&span, message, "give one of them another `affinity.cookie.name`");
        }
    }
}

/// Whether some host leads to both.
fn meet(a: &[HostPattern], b: &[HostPattern], closed: &HashSet<HostPattern>) -> bool {
    let shadows = |specific: &HostPattern, general: &HostPattern| specific != general && closed.contains(specific);
    a.iter().any(|a| {
        b.iter().any(|b| {
            let (specific, general) = if rank(a) >= rank(b) { (a, b) } else { (b, a) };
            overlap(a, b) && !shadows(specific, general)
        })
    })
}

/// Larger is more specific: exact names, then longer suffixes, then any.
fn rank(host: &HostPattern) -> usize {
    match host {
        HostPattern::Exact(_) => usize::MAX,
        HostPattern::Wildcard(suffix) => suffix.len(),
        HostPattern::Any => 0,
    }
}
