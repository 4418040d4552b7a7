//! Pools: what is written wins over the preset, the preset over the defaults.

use std::collections::HashMap;
use std::path::Path;

use toml::Spanned;

use crate::config::default;
use crate::config::file;
use crate::config::preset::{Behind, behind};
use crate::config::proxy::{Backend, CookieAffinity, Pool, PoolTimeouts, Probe, ProbeKind, UpstreamTls};
use crate::config::reader::Field;
use crate::config::word::ProbeType;
use crate::types::HumanDuration;

use super::{Site, as_u32, unreadable};

/// Every pool that is whole.
pub(super) fn pools(file: &file::File, site: &mut Site<'_, '_>) -> Vec<Pool> {
    let pools = file.pool.elements();
    let mut names = HashMap::new();
    for name in pools.iter().filter_map(|pool| pool.get_ref().name.spanned()) {
        site.refuse_duplicate(&mut names, name.get_ref(), name.span(), "pools");
    }
    pools.iter().filter_map(|pool| build(pool.get_ref(), site)).collect()
}

/// The name of a pool's affinity cookie, if it has one.
pub(super) fn cookie_name(pool: &file::Pool) -> Option<String> {
    let cookie = cookie(pool);
    let behind = behind(pool.preset.get().copied());
    if !cookie.map_or(behind.affinity, |cookie| cookie.enabled.get().copied().unwrap_or(true)) {
        return None;
    }
    match cookie.map(|cookie| &cookie.name) {
        Some(Field::Right(name)) => Some(name.get_ref().0.clone()),
        Some(Field::Wrong) => None,
        Some(Field::Missing) | None => pool.name.get().map(|name| format!("bowline_{}", name.0)),
    }
}

/// What is written about a pool's affinity cookie.
pub(super) fn cookie(pool: &file::Pool) -> Option<&file::Cookie> {
    pool.affinity.get().and_then(|affinity| affinity.cookie.get())
}

fn build(pool: &file::Pool, site: &mut Site<'_, '_>) -> Option<Pool> {
    let behind = behind(pool.preset.get().copied());
    // Everything is built before the first `?`, so that every problem is found.
    let affinity = affinity(pool, site);
    let tls = pool.tls.get().and_then(|tls| upstream_tls(tls, site));
    let probe = probe(pool.probe.get(), &behind, site);
    let backends = backends(pool, site);
    Some(Pool {
        name: pool.name.get()?.0.clone(),
        policy: pool.policy.get().copied().unwrap_or(behind.policy),
        affinity,
        tls,
        probe,
        backends: (!backends.is_empty()).then_some(backends)?,
        timeouts: timeouts(pool.timeouts.get()),
        reconnect_shim: pool.reconnect_shim.get().copied().unwrap_or(behind.reconnect_shim),
        rsc_request: pool.rsc_request.get().copied().unwrap_or(behind.rsc_request),
        heeds_leaving: behind.heeds_leaving,
        fail_open: pool.fail_open.get().copied().unwrap_or(default::FAIL_OPEN),
        retries: as_u32(pool.retries.get().map_or(default::RETRIES, |n| n.0)),
    })
}

fn affinity(pool: &file::Pool, site: &mut Site<'_, '_>) -> Option<CookieAffinity> {
    let name = cookie_name(pool)?;
    let nothing = file::Cookie::default();
    let cookie = cookie(pool).unwrap_or(&nothing);
    let key_file = match &cookie.key_file {
        Field::Right(path) => site.secret_file(&path.get_ref().0, path.span(), None),
        Field::Wrong => return None,
        // Nobody wrote the path; what asked for it is the table, or the preset.
        Field::Missing => {
            let table = pool.affinity.get().and_then(|affinity| affinity.cookie.spanned()).map(Spanned::span);
            let span = table.or_else(|| pool.preset.spanned().map(Spanned::span)).unwrap_or_default();
            site.secret_file(Path::new(default::KEY_FILE), span, None)
        }
    };
    Some(CookieAffinity {
        name,
        key_file,
        lifetime: cookie.lifetime.get().map(|lifetime| lifetime.0),
        cross_site: cookie.cross_site.get().copied().unwrap_or(default::CROSS_SITE),
    })
}

fn upstream_tls(tls: &file::UpstreamTls, site: &mut Site<'_, '_>) -> Option<UpstreamTls> {
    let ca_file = tls.ca_file.spanned().map(|file| {
        let absolute = site.path(&file.get_ref().0, file.span());
        if let Some(message) = unreadable(&absolute) {
            site.problems.at(&file.span(), message, "name a PEM file with the certificates to trust");
        }
        absolute
    });
    Some(UpstreamTls { ca_file, server_name: tls.server_name.get()?.0.clone() })
}

fn probe(probe: Option<&file::Probe>, behind: &Behind, site: &mut Site<'_, '_>) -> Option<Probe> {
    let nothing = file::Probe::default();
    let probe = probe.unwrap_or(&nothing);
    let kind = probe_kind(probe, behind, site);
    let interval = probe.interval.get().map_or(default::PROBE_INTERVAL, |t| t.0);
    let fast_interval = match probe.fast_interval.spanned() {
        Some(fast) if fast.get_ref().0 > interval => {
            let remedy = format!("write `\"{}\"` or less", HumanDuration::new(interval));
            site.problems.at(&fast.span(), "`fast_interval` is longer than `interval`", remedy);
            interval
        }
        Some(fast) => fast.get_ref().0,
        None => default::PROBE_FAST_INTERVAL.min(interval),
    };
    probe.enabled.get().copied().unwrap_or(default::PROBE).then_some(Probe {
        kind,
        interval,
        fast_interval,
        timeout: probe.timeout.get().map_or(default::PROBE_TIMEOUT, |t| t.0),
        rise: as_u32(probe.rise.get().map_or(default::RISE, |n| n.0)),
        fall: as_u32(probe.fall.get().map_or(default::FALL, |n| n.0)),
    })
}

fn probe_kind(probe: &file::Probe, behind: &Behind, site: &mut Site<'_, '_>) -> ProbeKind {
    let of_http = [
        ("path", probe.path.spanned().map(Spanned::span)),
        ("host", probe.host.spanned().map(Spanned::span)),
        ("status", probe.status.spanned().map(Spanned::span)),
    ];
    let is_http = behind.probe_path.is_some() || of_http.iter().any(|(_, span)| span.is_some());
    let kind = probe.r#type.get().copied().unwrap_or(if is_http { ProbeType::Http } else { ProbeType::Tcp });
    if kind == ProbeType::Tcp {
        for (name, span) in of_http {
            if let Some(span) = span {
                let remedy = "remove it, or write `type = \"http\"`";
                site.problems.at(&span, format!("`{name}` means nothing to a tcp probe"), remedy);
            }
        }
        return ProbeKind::Tcp;
    }
    let path = probe.path.get().map(|path| path.0.as_str());
    ProbeKind::Http {
        path: path.or(behind.probe_path).unwrap_or(default::PROBE_PATH).to_owned(),
        host: probe.host.get().map(|host| host.0.clone()),
        status: probe.status.get().map_or(default::PROBE_STATUS, |status| (status.0, status.1)),
    }
}

fn timeouts(timeouts: Option<&file::Timeouts>) -> PoolTimeouts {
    let nothing = file::Timeouts::default();
    let timeouts = timeouts.unwrap_or(&nothing);
    PoolTimeouts {
        connect: timeouts.connect.get().map_or(default::CONNECT_TIMEOUT, |t| t.0),
        response: timeouts.response.get().map_or(default::RESPONSE_TIMEOUT, |t| t.0),
        body: timeouts.body.get().map_or(default::BODY_TIMEOUT, |t| t.0),
        keepalive: timeouts.keepalive.get().map_or(default::UPSTREAM_KEEPALIVE_TIMEOUT, |t| t.0),
        tunnel_idle: timeouts.tunnel_idle.get().map_or(default::TUNNEL_IDLE_TIMEOUT, |t| t.0),
        tunnel_ping: timeouts.tunnel_ping.get().map_or(default::TUNNEL_PING, |t| t.0),
        startup: timeouts.startup.get().map_or(default::STARTUP_WAIT, |t| t.0),
    }
}

fn backends(pool: &file::Pool, site: &mut Site<'_, '_>) -> Vec<Backend> {
    let backends = pool.backend.elements();
    let mut keys = HashMap::new();
    for key in backends.iter().filter_map(|backend| backend.get_ref().key.spanned()) {
        site.refuse_duplicate(&mut keys, key.get_ref().as_str(), key.span(), "backends of a pool");
    }
    let build = |backend: &Spanned<file::Backend>| {
        let backend = backend.get_ref();
        Some(Backend {
            key: backend.key.get()?.clone(),
            address: backend.address.get()?.clone(),
            weight: as_u32(backend.weight.get().map_or(default::WEIGHT, |n| n.0)),
            admin: backend.admin.get().copied().unwrap_or(default::ADMIN_STATE),
        })
    };
    backends.iter().filter_map(build).collect()
}
