//! Listeners: protocol and TLS must agree, certificates must be somewhere.

use std::collections::HashMap;

use crate::config::default;
use crate::config::file;
use crate::config::proxy::{Listener, ListenerLimits, ListenerTls};
use crate::config::word::Protocol;

use super::{Site, as_usize};

/// Every listener that is whole.
pub(super) fn listeners(file: &file::File, site: &mut Site<'_, '_>) -> Vec<Listener> {
    let listeners = file.listener.elements();
    let mut names = HashMap::new();
    for name in listeners.iter().filter_map(|listener| listener.get_ref().name.spanned()) {
        site.refuse_duplicate(&mut names, name.get_ref(), name.span(), "listeners");
    }
    listeners.iter().filter_map(|listener| build(listener.get_ref(), site)).collect()
}

fn build(listener: &file::Listener, site: &mut Site<'_, '_>) -> Option<Listener> {
    refuse_discord(listener, site);
    // Before the first `?`: what is wrong with the folder is to be said in any case.
    let tls = listener.tls.spanned().and_then(|tls| build_tls(tls.get_ref(), site));
    Some(Listener {
        name: listener.name.get()?.0.clone(),
        address: listener.address.get()?.clone(),
        tls,
        redirect_to_https: listener.redirect_to_https.get().and_then(|port| u16::try_from(port.0).ok()),
        trusted: listener.trusted.elements().iter().map(|net| *net.get_ref()).collect(),
        limits: limits(listener.limits.get()),
    })
}

/// Reports what the protocol does not go with.
fn refuse_discord(listener: &file::Listener, site: &mut Site<'_, '_>) {
    match (listener.protocol.spanned(), listener.tls.spanned()) {
        (Some(protocol), None) if *protocol.get_ref() == Protocol::Https && listener.tls.is_missing() => {
            let remedy = "add `tls.certificates = \"FOLDER\"`, or write `\"http\"`";
            site.problems.at(&protocol.span(), "an https listener needs `tls`", remedy);
        }
        (Some(protocol), Some(tls)) if *protocol.get_ref() == Protocol::Http => {
            let remedy = "write `protocol = \"https\"`, or remove `tls`";
            site.problems.at(&tls.span(), "an http listener has no `tls`", remedy);
        }
        (None, Some(tls)) if listener.protocol.is_missing() => {
            let remedy = "add `protocol = \"https\"`, or remove `tls`";
            site.problems.at(&tls.span(), "a listener without `protocol` is http and has no `tls`", remedy);
        }
        _ => {}
    }
    if let (Some(Protocol::Https), Some(redirect)) = (listener.protocol.get(), listener.redirect_to_https.spanned()) {
        let remedy = "put it on a listener of its own with `protocol = \"http\"`";
        site.problems.at(&redirect.span(), "an https listener has no `redirect_to_https`", remedy);
    }
}

fn build_tls(tls: &file::ListenerTls, site: &mut Site<'_, '_>) -> Option<ListenerTls> {
    let folder = tls.certificates.spanned()?;
    let certificates = site.path(&folder.get_ref().0, folder.span());
    if !certificates.is_dir() {
        let shown = certificates.display();
        let message = match certificates.exists() {
            true => format!("`{shown}` is not a folder"),
            false => format!("there is no folder `{shown}`"),
        };
        site.problems.at(&folder.span(), message, "name a folder of PEM certificates with their keys");
    }
    Some(ListenerTls {
        certificates,
        minimum: tls.minimum.get().copied().unwrap_or(default::TLS_MINIMUM),
        http2: tls.http2.get().copied().unwrap_or(default::HTTP2),
    })
}

fn limits(limits: Option<&file::Limits>) -> ListenerLimits {
    // A table that is not there is one in which nothing is written.
    let nothing = file::Limits::default();
    let limits = limits.unwrap_or(&nothing);
    ListenerLimits {
        connections: as_usize(limits.connections.get().map_or(default::CONNECTIONS, |n| n.0)),
        handshake_timeout: limits.handshake_timeout.get().map_or(default::HANDSHAKE_TIMEOUT, |t| t.0),
        head_timeout: limits.head_timeout.get().map_or(default::HEAD_TIMEOUT, |t| t.0),
        head_bytes: as_usize(limits.head_bytes.get().map_or(default::HEAD_BYTES.bytes(), |n| n.0)),
        head_count: as_usize(limits.head_count.get().map_or(default::HEAD_COUNT, |n| n.0)),
        keepalive_timeout: limits.keepalive_timeout.get().map_or(default::KEEPALIVE_TIMEOUT, |t| t.0),
    }
}
