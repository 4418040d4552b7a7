//! Writes every metric down, always in the same order.

use std::sync::atomic::Ordering;

use super::{ContentSessions, Live, Metrics, WorkerFailure, names};
use crate::telemetry::metrics::{Counter, Exposition, Family, Named};

pub(super) fn render(metrics: &Metrics, live: &Live, mut text: Exposition) -> String {
    let build =
        [("version", env!("CARGO_PKG_VERSION")), ("commit", option_env!("BOWLINE_COMMIT").unwrap_or("unknown"))];
    text.family(&names::BUILD).sample(&build, 1);
    text.family(&names::LOG_DROPPED).sample(&[("log", "access")], live.dropped);
    requests(&mut text, metrics);
    by_two(&mut text, &names::UPLOADS, ("language", "outcome"), &metrics.uploads);
    jobs(&mut text, metrics, live);
    text.family(&names::BLOBS_DELETED).sample(&[], metrics.blobs_deleted.value());
    text.family(&names::BYTES_FREED).sample(&[], metrics.bytes_freed.value());
    text.family(&names::DATABASE_UP).sample(&[], u8::from(metrics.is_database_up.load(Ordering::Relaxed)));
    content(&mut text, metrics, live);
    sessions(&mut text, metrics, live);
    text.family(&names::INDEXES_MADE).sample(&[], metrics.indexes.value());
    text.finish()
}

fn requests(text: &mut Exposition, metrics: &Metrics) {
    let mut requests = text.family(&names::REQUESTS);
    for route in &metrics.routes {
        for (code, count) in route.codes.values() {
            let code = code.map_or_else(|| "other".to_owned(), |code| code.to_string());
            requests.sample(&[("route", route.name), ("code", &code)], count);
        }
    }
    let used = || metrics.routes.iter().filter(|route| route.duration.count() > 0);
    let mut durations = text.family(&names::REQUEST_DURATION);
    used().for_each(|route| durations.histogram(&[("route", route.name)], &route.duration));
    text.family(&names::REQUESTS_IN_FLIGHT).sample(&[], metrics.in_flight.load(Ordering::Relaxed));
    let mut sent = text.family(&names::SENT);
    used().for_each(|route| sent.sample(&[("route", route.name)], route.sent.value()));
}

fn jobs(text: &mut Exposition, metrics: &Metrics, live: &Live) {
    by_two(text, &names::JOBS, ("kind", "state"), &metrics.jobs);
    let mut durations = text.family(&names::JOB_DURATION);
    metrics.job_durations.named().for_each(|(kind, took)| durations.histogram(&[("kind", kind)], took));
    let queue = || live.queue.iter().flatten();
    let mut waiting = text.family(&names::JOBS_WAITING);
    queue().for_each(|of| waiting.sample(&[("kind", of.kind)], of.count));
    let mut age = text.family(&names::JOBS_WAITING_AGE);
    queue().for_each(|of| age.sample(&[("kind", of.kind)], of.age.as_secs_f64()));
}

fn content(text: &mut Exposition, metrics: &Metrics, live: &Live) {
    by_two(text, &names::ENVIRONMENT_BUILDS, ("language", "outcome"), &metrics.environments);
    let mut durations = text.family(&names::ENVIRONMENT_DURATION);
    let all = metrics.environment_durations.named();
    all.for_each(|(language, took)| durations.histogram(&[("language", language)], took));
    let mut hits = text.family(&names::ENVIRONMENT_HITS);
    for (language, count) in metrics.environment_hits.values() {
        hits.sample(&[("language", language.unwrap_or("other"))], count);
    }
    by_two(text, &names::RENDERS, ("mode", "outcome"), &metrics.renders);
    text.family(&names::WORKERS).sample(&[], live.workers);
    text.family(&names::WORKER_CONNECTIONS).sample(&[], live.connections);
    let outcomes = [("ready", &metrics.workers_ready), ("failed", &metrics.workers_failed)];
    by_one(text, &names::WORKER_STARTS, "outcome", outcomes);
    let reasons = WorkerFailure::ALL.map(WorkerFailure::as_str).into_iter().zip(&metrics.worker_failures);
    by_one(text, &names::WORKER_FAILURES, "reason", reasons);
}

fn sessions(text: &mut Exposition, metrics: &Metrics, live: &Live) {
    let mut sessions = text.family(&names::SESSIONS);
    for (state, count) in [("live", live.sessions_live), ("held", live.sessions_held)] {
        sessions.sample(&[("state", state)], count);
    }
    let mut sessions = text.family(&names::CONTENT_SESSIONS);
    for ContentSessions { guid, live, held } in busiest(&live.contents) {
        for (state, count) in [("live", live), ("held", held)] {
            sessions.sample(&[("content", &guid), ("state", state)], count);
        }
    }
    text.family(&names::SESSION_BYTES).sample(&[], live.session_bytes);
    let outcomes = [("resumed", &metrics.sessions_resumed), ("gone", &metrics.sessions_gone)];
    by_one(text, &names::SESSION_RESUMES, "outcome", outcomes);
    let causes = ["timeout", "worker", "leaving"].into_iter().zip(&metrics.holds_ended);
    by_one(text, &names::SESSION_HOLDS_ENDED, "cause", causes);
}

/// Those with the most sessions, in the order of their names, and all others together: a series for each would be more than
/// a Prometheus likes where there are thousands of contents.
fn busiest(all: &[ContentSessions]) -> Vec<ContentSessions> {
    let mut all = all.to_vec();
    all.sort_unstable_by(|a, b| (b.live + b.held).cmp(&(a.live + a.held)).then_with(|| a.guid.cmp(&b.guid)));
    let others = all.split_off(all.len().min(names::CONTENTS_MAX));
    all.sort_unstable_by(|a, b| a.guid.cmp(&b.guid));
    if !others.is_empty() {
        let (live, held) = others.iter().fold((0, 0), |(live, held), of| (live + of.live, held + of.held));
        all.push(ContentSessions { guid: "other".to_owned(), live, held });
    }
    all
}

fn by_one<'a>(
    text: &mut Exposition,
    family: &Family,
    label: &'static str,
    all: impl IntoIterator<Item = (&'static str, &'a Counter)>,
) {
    let mut series = text.family(family);
    for (name, count) in all {
        series.sample(&[(label, name)], count.value());
    }
}

fn by_two<const N: usize>(
    text: &mut Exposition,
    family: &Family,
    (one, two): (&'static str, &'static str),
    all: &Named<(&'static str, &'static str), N>,
) {
    let mut series = text.family(family);
    for (name, count) in all.values() {
        let (first, second) = name.unwrap_or(("other", "other"));
        series.sample(&[(one, first), (two, second)], count);
    }
}
