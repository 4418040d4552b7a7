//! Writes every metric down, always in the same order.

use super::labels::{AffinityCause, Method, PickReason, ProbeOutcome};
use super::{Metrics, Observed, ObservedBackend, RouteLabels, RouteMetrics, names};
use crate::telemetry::metrics::{Exposition, Family, Labels, Named};

pub(super) fn render(metrics: &Metrics, observed: &Observed, mut text: Exposition) -> String {
    process(&mut text, metrics, observed);
    listeners(&mut text, metrics, observed);
    requests(&mut text, metrics, observed);
    pools(&mut text, metrics);
    backends(&mut text, metrics, observed);
    text.finish()
}

fn process(text: &mut Exposition, metrics: &Metrics, observed: &Observed) {
    let build = [("version", metrics.version), ("commit", metrics.commit)];
    text.family(&names::BUILD).sample(&build, 1);
    text.family(&names::RELOAD_SUCCESSFUL).sample(&[], u8::from(observed.reload_successful));
    text.family(&names::RELOAD_TIME).sample(&[], observed.reload_success.as_secs_f64());
    let mut dropped = text.family(&names::LOG_DROPPED);
    dropped.sample(&[("log", "access")], observed.access_log_dropped);
    dropped.sample(&[("log", "process")], observed.process_log_dropped);
    let mut not_after = text.family(&names::CERTIFICATE_NOT_AFTER);
    for (server_name, seconds) in &observed.certificates {
        not_after.sample(&[("server_name", server_name)], seconds);
    }
}

fn listeners(text: &mut Exposition, metrics: &Metrics, observed: &Observed) {
    let mut connections = text.family(&names::CONNECTIONS);
    for (listener, open) in &observed.listeners {
        connections.sample(&[("listener", listener)], open);
    }
    let listeners = metrics.listeners.living();
    let named = listeners.iter().map(|(name, handle)| (&**name, &handle.handshake_failures));
    by_name(text, &names::HANDSHAKE_FAILURES, "listener", "reason", named);
    let named = listeners.iter().map(|(name, handle)| (&**name, &handle.refused));
    by_name(text, &names::REFUSED, "listener", "reason", named);
}

fn requests(text: &mut Exposition, metrics: &Metrics, observed: &Observed) {
    let mut requests = text.family(&names::REQUESTS);
    for (labels, handle) in metrics.routes.living() {
        answered(&handle, |method, code, count| {
            let RouteLabels { listener, route, pool } = &labels;
            let labels =
                [("listener", &**listener), ("route", route), ("pool", pool), ("method", method), ("code", code)];
            requests.sample(&labels, count);
        });
    }
    let mut durations = text.family(&names::REQUEST_DURATION);
    for ((route, pool), handle) in metrics.durations.living() {
        durations.histogram(&[("route", &route), ("pool", &pool)], &handle);
    }
    let mut connects = text.family(&names::UPSTREAM_CONNECT_DURATION);
    for (pool, handle) in metrics.pools.living() {
        connects.histogram(&[("pool", &pool)], &handle.connect);
    }
    gauge(text, &names::REQUESTS_IN_FLIGHT, observed, |backend| backend.in_flight);
}

/// Tells of every method and code that was answered at least once.
fn answered(handle: &RouteMetrics, mut tell: impl FnMut(&str, &str, u64)) {
    for (method, (classes, odd)) in Method::ALL.iter().zip(handle.codes.iter().zip(&handle.odd)) {
        for (class, codes) in classes.iter().enumerate() {
            for (rest, counter) in codes.get().into_iter().flat_map(|codes| codes.iter().enumerate()) {
                if counter.value() > 0 {
                    tell(method.as_str(), &((class + 1) * 100 + rest).to_string(), counter.value());
                }
            }
        }
        if odd.value() > 0 {
            tell(method.as_str(), "other", odd.value());
        }
    }
}

fn pools(text: &mut Exposition, metrics: &Metrics) {
    let pools = metrics.pools.living();
    let mut picks = text.family(&names::PICKS);
    for (pool, handle) in &pools {
        for (reason, counter) in PickReason::ALL.iter().zip(&handle.picks) {
            picks.sample(&[("pool", pool), ("reason", reason.as_str())], counter.value());
        }
    }
    let mut rejected = text.family(&names::AFFINITY_REJECTED);
    for (pool, handle) in &pools {
        for (cause, counter) in AffinityCause::ALL.iter().zip(&handle.rejected) {
            rejected.sample(&[("pool", pool), ("cause", cause.as_str())], counter.value());
        }
    }
    let named = pools.iter().map(|(pool, handle)| (&**pool, &handle.retries));
    by_name(text, &names::RETRIES, "pool", "cause", named);
    let mut errors = text.family(&names::ERRORS);
    for (pool, handle) in &pools {
        for (name, count) in handle.errors.values() {
            let (side, cause) = name.map_or(("other", "other"), |(side, cause)| (side.as_str(), cause));
            errors.sample(&[("pool", pool), ("side", side), ("cause", cause)], count);
        }
    }
    let named = pools.iter().map(|(pool, handle)| (&**pool, &handle.lost));
    by_name(text, &names::SESSIONS_LOST, "pool", "cause", named);
    let named = pools.iter().map(|(pool, handle)| (&**pool, &handle.closes));
    by_name(text, &names::SESSION_CLOSES, "pool", "code", named);
}

fn backends(text: &mut Exposition, metrics: &Metrics, observed: &Observed) {
    gauge(text, &names::SESSIONS, observed, |backend| backend.sessions);
    gauge(text, &names::BACKEND_UP, observed, |backend| backend.is_up.into());
    gauge(text, &names::BACKEND_DRAINING, observed, |backend| backend.is_draining.into());
    gauge(text, &names::BACKEND_DISABLED, observed, |backend| backend.is_disabled.into());
    let mut probes = text.family(&names::PROBES);
    for ((pool, key), handle) in metrics.backends.living() {
        for (outcome, counter) in ProbeOutcome::ALL.iter().zip(&handle.probes) {
            let labels: Labels<'_> = &[("pool", &pool), ("backend", key.as_str()), ("outcome", outcome.as_str())];
            probes.sample(labels, counter.value());
        }
    }
}

fn gauge(text: &mut Exposition, family: &Family, observed: &Observed, value: impl Fn(&ObservedBackend) -> u64) {
    let mut series = text.family(family);
    for backend in &observed.backends {
        series.sample(&[("pool", &backend.pool), ("backend", backend.key.as_str())], value(backend));
    }
}

fn by_name<'a, const N: usize>(
    text: &mut Exposition,
    family: &Family,
    owner_label: &'static str,
    name_label: &'static str,
    owners: impl Iterator<Item = (&'a str, &'a Named<&'static str, N>)>,
) {
    let mut series = text.family(family);
    for (owner, named) in owners {
        let mut values: Vec<_> = named.values().map(|(name, count)| (name.unwrap_or("other"), count)).collect();
        values.sort_unstable();
        for (name, count) in values {
            series.sample(&[(owner_label, owner), (name_label, name)], count);
        }
    }
}
