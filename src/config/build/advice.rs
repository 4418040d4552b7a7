//! What is written well and yet cannot be meant: one error, and warnings about the rest.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use toml::Spanned;

use crate::config::file;
use crate::config::word::Protocol;
use crate::types::{BackendAddress, ListenAddress};

use super::Site;
use super::pool::cookie;

/// Looks at how the tables stand to each other.
pub(super) fn advise(file: &file::File, site: &mut Site<'_, '_>) {
    refuse_circles(file, site);
    for pool in file.pool.elements().iter().map(Spanned::get_ref) {
        warn_of_twins(pool, site);
        warn_of_lost_cookies(file, pool, site);
    }
    warn_of_unreachable_pools(file, site);
    warn_of_redirects_to_nowhere(file, site);
}

/// A backend that is one of our own listeners gets every request back, until descriptors end.
fn refuse_circles(file: &file::File, site: &mut Site<'_, '_>) {
    let listeners = file.listener.elements().iter().map(Spanned::get_ref);
    let ours: Vec<_> = listeners.filter_map(|l| Some((l.address.get()?, l.name.get()))).collect();
    let backends = file.pool.elements().iter().flat_map(|pool| pool.get_ref().backend.elements());
    for address in backends.filter_map(|backend| backend.get_ref().address.spanned()) {
        let Some((_, name)) = ours.iter().find(|(ours, _)| leads_to(address.get_ref(), ours)) else { continue };
        let name =
            name.map_or("the proxy's own listener".to_owned(), |n| format!("the proxy's own listener `{}`", n.0));
        let message = format!("the backend `{}` is {name}: requests would go round in a circle", address.get_ref());
        site.problems.at(&address.span(), message, "name the address the application listens on");
    }
}

/// Whether who dials `backend` on this machine reaches `listener`.
fn leads_to(backend: &BackendAddress, listener: &ListenAddress) -> bool {
    match (backend, listener) {
        (BackendAddress::Unix(a), ListenAddress::Unix(b)) => a == b,
        (BackendAddress::Inet { host, port }, ListenAddress::Inet(at)) if *port == at.port() => {
            let is_localhost = host.eq_ignore_ascii_case("localhost");
            match host.parse::<IpAddr>() {
                Ok(ip) if at.ip().is_unspecified() => {
                    ip.is_ipv4() == at.is_ipv4() && (ip.is_loopback() || ip.is_unspecified())
                }
                Ok(ip) => ip == at.ip() || ip.is_unspecified() && at.ip().is_loopback(),
                Err(_) => is_localhost && (at.ip().is_loopback() || at.ip().is_unspecified()),
            }
        }
        _ => false,
    }
}

/// Two keys for one process halve what a drain or a health check says of it.
fn warn_of_twins(pool: &file::Pool, site: &mut Site<'_, '_>) {
    let mut seen = HashMap::new();
    for address in pool.backend.elements().iter().filter_map(|backend| backend.get_ref().address.spanned()) {
        if let Some(first) = seen.get(address.get_ref()) {
            let remedy = format!(
                "remove one of them, and give the other more `weight`; it is in line {}",
                site.problems.line(first)
            );
            let message = format!("two backends of this pool have the address `{}`", address.get_ref());
            site.problems.warn(&address.span(), message, remedy);
        } else {
            seen.insert(address.get_ref(), address.span());
        }
    }
}

fn warn_of_unreachable_pools(file: &file::File, site: &mut Site<'_, '_>) {
    let names = || file.pool.elements().iter().filter_map(|pool| pool.get_ref().name.spanned());
    let known: HashSet<&str> = names().map(|name| &*name.get_ref().0).collect();
    let mut routed = HashSet::new();
    for route in file.route.elements() {
        match route.get_ref().pool.get() {
            Some(name) if known.contains(&*name.0) => drop(routed.insert(&*name.0)),
            // A route that is wrong may be the one that should lead there.
            _ => return,
        }
    }
    if routed.is_empty() {
        return;
    }
    for name in names().filter(|name| !routed.contains(&*name.get_ref().0)) {
        let remedy = format!("add `[[route]]` with `pool = \"{}\"`, or remove the pool", name.get_ref().0);
        site.problems.warn(&name.span(), format!("no route leads to the pool `{}`", name.get_ref().0), remedy);
    }
}

/// `SameSite=None` without `Secure` is dropped by browsers, and `Secure` needs https.
fn warn_of_lost_cookies(file: &file::File, pool: &file::Pool, site: &mut Site<'_, '_>) {
    let Some(cross_site) = cookie(pool).and_then(|cookie| cookie.cross_site.spanned()) else { return };
    if *cross_site.get_ref() && !has_https(file) {
        let remedy = "add a listener with `protocol = \"https\"`, or remove `cross_site`";
        site.problems.warn(&cross_site.span(), "browsers drop a cross-site cookie that comes without https", remedy);
    }
}

fn warn_of_redirects_to_nowhere(file: &file::File, site: &mut Site<'_, '_>) {
    if has_https(file) {
        return;
    }
    for redirect in file.listener.elements().iter().filter_map(|l| l.get_ref().redirect_to_https.spanned()) {
        let remedy = "add a listener with `protocol = \"https\"`, unless something else listens there";
        site.problems.warn(&redirect.span(), "redirects to https, and no listener speaks it", remedy);
    }
}

fn has_https(file: &file::File) -> bool {
    let listeners = file.listener.elements().iter().map(Spanned::get_ref);
    // What could not be read may have been one.
    file.listener.get().is_none()
        || listeners.clone().any(|l| {
            l.protocol.get() == Some(&Protocol::Https) || !l.protocol.is_missing() && l.protocol.get().is_none()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_is_seen_through_every_name_of_this_machine() {
        for (backend, listener, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "0.0.0.0:80", true),
            ("127.0.0.9:80", "0.0.0.0:80", true),
            ("localhost:80", "0.0.0.0:80", true),
            ("localhost:80", "[::1]:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("[::1]:80", "[::]:80", true),
            ("unix:/run/a.sock", "unix:/run/a.sock", true),
            ("10.0.0.1:80", "10.0.0.1:80", true),
            ("10.0.0.1:80", "0.0.0.0:80", false),
            ("127.0.0.1:81", "127.0.0.1:80", false),
            ("127.0.0.1:80", "10.0.0.1:80", false),
            ("127.0.0.1:80", "[::]:80", false),
            ("localhost:80", "10.0.0.1:80", false),
            ("unix:/run/a.sock", "127.0.0.1:80", false),
        ] {
            let (b, l) = (backend.parse().expect(backend), listener.parse().expect(listener));
            assert_eq!(leads_to(&b, &l), expected, "{backend} and {listener}");
        }
    }
}
