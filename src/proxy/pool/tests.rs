use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::config::proxy::{Policy, PoolTimeouts, Probe, ProbeKind};
use crate::runtime::clock;
use crate::types::BackendAddress;

/// A pool as a test wants it.
#[derive(Clone)]
struct Wanted {
    backends: Vec<(&'static str, u32, AdminState)>,
    policy: Policy,
    is_probed: bool,
    fail_open: bool,
    port: u16,
}

impl Wanted {
    fn of(keys: &[&'static str]) -> Self {
        let backends = keys.iter().map(|&k| (k, 1, AdminState::Enabled)).collect();
        Self { backends, policy: Policy::LeastSessions, is_probed: true, fail_open: false, port: 80 }
    }

    fn settings(&self) -> Arc<settings::Pool> {
        let second = Duration::from_secs(1);
        let probe =
            Probe { kind: ProbeKind::Tcp, interval: second, fast_interval: second, timeout: second, rise: 2, fall: 3 };
        let backend = |&(key, weight, admin): &(&str, u32, AdminState)| settings::Backend {
            key: key.parse().expect("a key"),
            address: BackendAddress::Inet { host: key.to_owned(), port: self.port },
            weight,
            admin,
        };
        Arc::new(settings::Pool {
            name: "p".into(),
            policy: self.policy,
            affinity: None,
            tls: None,
            probe: self.is_probed.then_some(probe),
            backends: self.backends.iter().map(backend).collect(),
            timeouts: PoolTimeouts {
                connect: second,
                response: second,
                body: second,
                keepalive: second,
                tunnel_idle: second,
                tunnel_ping: second,
                startup: second,
            },
            reconnect_shim: false,
            rsc_request: false,
            heeds_leaving: false,
            fail_open: self.fail_open,
            retries: 2,
        })
    }

    /// Without any verdict yet.
    fn fresh(&self, now: Instant) -> Pool {
        Pool::new(self.settings(), None, now)
    }

    /// Everybody up.
    fn pool(&self, now: Instant) -> Pool {
        let pool = self.fresh(now);
        for backend in pool.backends() {
            backend.observe(Outcome::ProbeOk, now);
        }
        pool
    }
}

fn key(text: &str) -> BackendKey {
    text.parse().expect("a key")
}

fn of<'a>(pool: &'a Pool, key: &str) -> &'a Arc<Backend> {
    pool.backend(key).expect("a backend")
}

/// Key, reason, binds.
type Short = Result<(String, Reason, bool), NoPick>;

fn pick(pool: &Pool, bound: Option<&str>, tried: &[&str], now: Instant) -> Short {
    let tried: Vec<_> = tried.iter().map(|t| key(t)).collect();
    let pick = pool.pick(bound.map(key).as_ref(), &tried, now)?;
    Ok((pick.backend.key().to_string(), pick.reason, pick.binds))
}

fn picked(to: &str, reason: Reason, binds: bool) -> Short {
    Ok((to.to_owned(), reason, binds))
}

#[test]
fn every_state_has_its_rule_for_new_and_bound_clients() {
    use AdminState::{Disabled, Draining, Enabled};
    let now = clock::now();
    let rebound = || picked("b", Reason::Rebound, true);
    let sticky = || picked("a", Reason::Sticky, false);
    for (admin, health, new_may, bound) in [
        (Enabled, Health::Up, true, sticky()),
        (Draining, Health::Up, false, sticky()),
        (Disabled, Health::Up, false, rebound()),
        (Enabled, Health::Down, false, rebound()),
        (Draining, Health::Down, false, rebound()),
        (Disabled, Health::Down, false, rebound()),
        (Enabled, Health::Unknown, false, Err(NoPick::NoVerdictYet)),
        (Draining, Health::Unknown, false, Err(NoPick::NoVerdictYet)),
        (Disabled, Health::Unknown, false, rebound()),
        (Enabled, Health::Leaving, false, sticky()),
        (Draining, Health::Leaving, false, sticky()),
        (Disabled, Health::Leaving, false, rebound()),
    ] {
        let pool = Wanted::of(&["a", "b"]).fresh(now);
        of(&pool, "b").observe(Outcome::ProbeOk, now);
        match health {
            Health::Up => drop(of(&pool, "a").observe(Outcome::ProbeOk, now)),
            Health::Down => drop(of(&pool, "a").observe(Outcome::ProbeFailed, now)),
            Health::Leaving => drop(of(&pool, "a").observe(Outcome::Leaving, now)),
            Health::Unknown => {}
        }
        of(&pool, "a").set_admin(admin, now);
        let case = format!("{admin:?} {health:?}");
        let reached = (0..10).any(|_| pick(&pool, None, &[], now) == picked("a", Reason::Balanced, true));
        assert_eq!(reached, new_may, "{case}");
        assert_eq!(pick(&pool, Some("a"), &[], now), bound, "{case}");
        assert_eq!(of(&pool, "a").is_ready(), new_may, "{case}");
    }
}

#[test]
fn who_is_sent_away_by_a_backend_that_leaves_belongs_to_another_one() {
    let now = clock::now();
    let pool = Wanted::of(&["a", "b"]).fresh(now);
    of(&pool, "b").observe(Outcome::ProbeOk, now);
    of(&pool, "a").observe(Outcome::Leaving, now);
    assert_eq!(pick(&pool, Some("a"), &["a"], now), picked("b", Reason::Rebound, true));
    of(&pool, "b").observe(Outcome::Refused, now);
    assert_eq!(pick(&pool, None, &[], now), picked("a", Reason::Balanced, true), "better than one that is down");
}

#[test]
fn requests_wait_for_the_first_verdict_only() {
    let now = clock::now();
    let pool = Wanted::of(&["a", "b"]).fresh(now);
    assert_eq!(pick(&pool, None, &[], now), Err(NoPick::NoVerdictYet));
    of(&pool, "a").observe(Outcome::ProbeFailed, now);
    assert_eq!(pick(&pool, None, &[], now), Err(NoPick::NoVerdictYet));
    of(&pool, "b").observe(Outcome::ProbeFailed, now);
    assert_eq!(pick(&pool, None, &[], now), Err(NoPick::NobodyReady));
    of(&pool, "b").observe(Outcome::ProbeOk, now);
    of(&pool, "b").observe(Outcome::ProbeOk, now);
    assert_eq!(pick(&pool, None, &[], now), picked("b", Reason::Balanced, true));
}

#[test]
fn a_bound_client_waits_for_its_own_and_goes_round_it_in_the_end() {
    let now = clock::now();
    let pool = Wanted::of(&["a", "b"]).fresh(now);
    of(&pool, "b").observe(Outcome::ProbeOk, now);
    assert_eq!(pick(&pool, Some("a"), &[], now), Err(NoPick::NoVerdictYet));
    assert_eq!(pick(&pool, Some("a"), &["a"], now), picked("b", Reason::Balanced, false));
}

#[test]
fn a_refused_connection_rebinds_in_the_same_request_and_the_client_stays() {
    let now = clock::now();
    let pool = Wanted::of(&["a", "b", "c"]).pool(now);
    assert_eq!(of(&pool, "a").observe(Outcome::Refused, now), Some(Transition { from: Health::Up, to: Health::Down }));
    let moved = pick(&pool, Some("a"), &["a"], now).expect("another");
    assert_eq!((moved.1, moved.2), (Reason::Rebound, true));
    of(&pool, "a").observe(Outcome::ProbeOk, now);
    of(&pool, "a").observe(Outcome::ProbeOk, now);
    assert_eq!(pick(&pool, Some(&moved.0), &[], now), picked(&moved.0, Reason::Sticky, false), "no bouncing back");
}

#[test]
fn a_timeout_takes_a_detour_without_rebinding() {
    let now = clock::now();
    let pool = Wanted::of(&["a", "b"]).pool(now);
    assert_eq!(of(&pool, "a").observe(Outcome::TimedOut, now), None);
    assert_eq!(pick(&pool, Some("a"), &["a"], now), picked("b", Reason::Balanced, false));
    assert_eq!(pick(&pool, Some("a"), &[], now), picked("a", Reason::Sticky, false));
    assert_eq!(pick(&pool, Some("a"), &["a", "b"], now), Err(NoPick::AllTried));
}

#[test]
fn nobody_left_is_told_apart_from_nobody_ready() {
    let now = clock::now();
    let pool = Wanted::of(&["a", "b"]).pool(now);
    of(&pool, "a").observe(Outcome::Refused, now);
    of(&pool, "b").observe(Outcome::Refused, now);
    assert_eq!(pick(&pool, None, &["a", "b"], now), Err(NoPick::AllTried));
    assert_eq!(pick(&pool, None, &[], now), Err(NoPick::NobodyReady));
    assert_eq!(pick(&pool, Some("a"), &[], now), Err(NoPick::NobodyReady));
    let pool = Wanted::of(&["a"]).pool(now);
    of(&pool, "a").set_admin(AdminState::Draining, now);
    assert_eq!(pick(&pool, None, &[], now), Err(NoPick::NobodyReady));
}

#[test]
fn an_unknown_key_is_picked_anew_and_said() {
    let now = clock::now();
    let pool = Wanted::of(&["a"]).pool(now);
    let pick = pool.pick(Some(&key("gone")), &[], now).expect("a pick");
    assert_eq!((pick.reason, pick.binds, pick.was_unknown), (Reason::Balanced, true, true));
    assert!(!pool.pick(Some(&key("a")), &[], now).expect("a pick").was_unknown);
}

#[test]
fn a_cookie_is_written_when_the_pick_binds_or_a_stay_is_renewed() {
    let now = clock::now();
    let pool = Wanted::of(&["a", "b"]).pool(now);
    let writes = |bound: Option<&str>, tried: &[&str]| {
        let tried: Vec<_> = tried.iter().map(|t| key(t)).collect();
        let pick = pool.pick(bound.map(key).as_ref(), &tried, now).expect("a pick");
        (pick.writes_cookie(false), pick.writes_cookie(true))
    };
    assert_eq!(writes(None, &[]), (true, true));
    assert_eq!(writes(Some("a"), &[]), (false, true));
    assert_eq!(writes(Some("a"), &["a"]), (false, false), "a detour never writes");
    assert_eq!(writes(Some("x"), &[]), (true, true));
}

#[test]
fn fail_open_uses_the_down_but_not_the_draining_or_disabled() {
    let now = clock::now();
    let pool = Wanted { fail_open: true, ..Wanted::of(&["a", "b", "c", "d"]) }.pool(now);
    for backend in pool.backends() {
        backend.observe(Outcome::Refused, now);
    }
    of(&pool, "c").set_admin(AdminState::Draining, now);
    of(&pool, "d").set_admin(AdminState::Disabled, now);
    let new: Vec<_> = (0..4).map(|_| pick(&pool, None, &[], now).expect("open").0).collect();
    assert_eq!(new, ["a", "b", "a", "b"]);
    for own in ["a", "b", "c"] {
        assert_eq!(pick(&pool, Some(own), &[], now), picked(own, Reason::Sticky, false));
    }
    assert_eq!(pick(&pool, Some("a"), &["a"], now), picked("b", Reason::Rebound, true));
    assert!(matches!(pick(&pool, Some("d"), &[], now), Ok((_, Reason::Rebound, true))));
    assert_eq!(pick(&pool, None, &["a", "b"], now), Err(NoPick::AllTried));
    of(&pool, "b").observe(Outcome::ProbeOk, now);
    of(&pool, "b").observe(Outcome::ProbeOk, now);
    assert_eq!(pick(&pool, Some("a"), &[], now), picked("b", Reason::Rebound, true), "somebody is up again");
}

#[test]
fn without_probes_a_down_backend_gets_one_request_on_trial() {
    let t0 = clock::now();
    let at = |ms| t0 + Duration::from_millis(ms);
    let pool = Wanted { is_probed: false, ..Wanted::of(&["a", "b"]) }.fresh(t0);
    of(&pool, "a").observe(Outcome::Refused, t0);
    assert!((0..10).all(|_| pick(&pool, None, &[], at(9_999)) == picked("b", Reason::Balanced, true)));
    assert_eq!(pick(&pool, None, &["b"], at(10_000)), Err(NoPick::AllTried), "no trial for who has failed already");
    assert_eq!(pick(&pool, None, &[], at(10_000)), picked("a", Reason::Balanced, true));
    assert_eq!(pick(&pool, None, &[], at(10_001)), picked("b", Reason::Balanced, true));
    assert_eq!(pick(&pool, Some("a"), &[], at(19_999)), picked("b", Reason::Rebound, true));
    assert_eq!(pick(&pool, Some("a"), &[], at(20_000)), picked("a", Reason::Sticky, false));
    of(&pool, "a").observe(Outcome::Answered, at(20_001));
    assert!(of(&pool, "a").is_ready());
}

#[test]
fn without_probes_and_without_anybody_up_a_trial_comes_each_second() {
    let t0 = clock::now();
    let at = |ms| t0 + Duration::from_millis(ms);
    let pool = Wanted { is_probed: false, ..Wanted::of(&["a"]) }.fresh(t0);
    of(&pool, "a").observe(Outcome::Refused, t0);
    assert_eq!(pick(&pool, Some("a"), &[], at(999)), Err(NoPick::NobodyReady));
    assert_eq!(pick(&pool, Some("a"), &[], at(1_000)), picked("a", Reason::Sticky, false));
    assert_eq!(pick(&pool, None, &[], at(1_999)), Err(NoPick::NobodyReady));
    assert_eq!(pick(&pool, None, &[], at(2_000)), picked("a", Reason::Balanced, true));
}

#[test]
fn guards_count_and_return_to_zero() {
    let now = clock::now();
    let pool = Wanted::of(&["a"]).pool(now);
    let a = of(&pool, "a");
    let (request, session, other) = (a.begin_request(), a.begin_session(), a.begin_session());
    assert!(Arc::ptr_eq(request.backend(), a) && Arc::ptr_eq(session.backend(), a));
    assert_eq!((a.in_flight(), a.sessions(), a.requests()), (1, 2, 1));
    drop((request, session, other));
    assert_eq!((a.in_flight(), a.sessions(), a.requests()), (0, 0, 1));
}

#[test]
fn leaving_and_settled_say_what_they_mean() {
    let now = clock::now();
    let pool = Wanted::of(&["a"]).fresh(now);
    let a = of(&pool, "a");
    let state = || (a.is_leaving(), a.is_settled(now));
    assert_eq!(state(), (false, false));
    a.observe(Outcome::ProbeOk, now);
    assert_eq!(state(), (false, true));
    a.observe(Outcome::Broken, now);
    assert_eq!(state(), (true, false));
    a.observe(Outcome::Answered, now);
    a.set_admin(AdminState::Draining, now);
    assert_eq!(state(), (true, true));
    a.set_admin(AdminState::Enabled, now);
    a.observe(Outcome::Refused, now);
    assert_eq!(state(), (true, false));
}

#[test]
fn since_follows_health_and_admin_state() {
    let t0 = clock::now();
    let at = |s| t0 + Duration::from_secs(s);
    let pool = Wanted::of(&["a"]).fresh(t0);
    let a = of(&pool, "a");
    assert_eq!(a.since(), t0);
    a.observe(Outcome::ProbeOk, at(1));
    a.set_admin(AdminState::Draining, at(2));
    a.set_admin(AdminState::Draining, at(3));
    assert_eq!(a.since(), at(2));
    a.observe(Outcome::Refused, at(4));
    assert_eq!(a.since(), at(4));
}

#[test]
fn a_reload_keeps_what_is_known_by_key() {
    let t0 = clock::now();
    let later = t0 + Duration::from_secs(5);
    let old = Wanted::of(&["a", "b"]).pool(t0);
    of(&old, "a").set_admin(AdminState::Draining, t0);
    of(&old, "b").observe(Outcome::Refused, t0);
    let (session, request) = (of(&old, "a").begin_session(), of(&old, "a").begin_request());

    let mut wanted = Wanted::of(&["c", "b", "a"]);
    wanted.backends[2].1 = 7;
    let new = Pool::new(wanted.settings(), Some(&old), later);
    let a = of(&new, "a");
    assert_eq!((a.sessions(), a.in_flight(), a.requests(), a.weight()), (1, 1, 1, 7));
    assert_eq!((a.health(), a.admin(), a.since()), (Health::Up, AdminState::Draining, t0));
    assert_eq!(of(&new, "b").health(), Health::Down);
    assert_eq!(of(&new, "c").health(), Health::Unknown);

    // Old and new generation are one: guards and late outcomes of the old one count.
    drop((session, request));
    assert_eq!((a.sessions(), a.in_flight()), (0, 0));
    of(&old, "a").observe(Outcome::Refused, later);
    assert_eq!(a.health(), Health::Down);
}

#[test]
fn a_new_address_starts_health_anew_and_keeps_the_rest() {
    let now = clock::now();
    let wanted = Wanted::of(&["a"]);
    let old = wanted.pool(now);
    of(&old, "a").set_admin(AdminState::Draining, now);
    let session = of(&old, "a").begin_session();
    let new = Pool::new(Wanted { port: 81, ..wanted }.settings(), Some(&old), now);
    let a = of(&new, "a");
    assert_eq!((a.health(), a.admin(), a.sessions()), (Health::Unknown, AdminState::Draining, 1));
    of(&old, "a").observe(Outcome::Refused, now);
    assert_eq!(a.health(), Health::Unknown, "the old address speaks for itself only");
    drop(session);
    assert_eq!(a.sessions(), 0);
}

#[test]
fn an_edited_admin_state_counts_and_an_unedited_one_does_not() {
    let now = clock::now();
    let with = |admin| {
        let mut wanted = Wanted::of(&["a"]);
        wanted.backends[0].2 = admin;
        wanted.settings()
    };
    let first = Pool::new(with(AdminState::Disabled), None, now);
    assert_eq!(of(&first, "a").admin(), AdminState::Disabled);
    of(&first, "a").set_admin(AdminState::Enabled, now);
    let second = Pool::new(with(AdminState::Disabled), Some(&first), now);
    assert_eq!(of(&second, "a").admin(), AdminState::Enabled);
    let third = Pool::new(with(AdminState::Draining), Some(&second), now);
    assert_eq!(of(&third, "a").admin(), AdminState::Draining);
}

#[test]
fn a_backend_that_comes_back_finds_its_sessions() {
    let now = clock::now();
    let both = Wanted::of(&["a", "b"]).pool(now);
    let session = of(&both, "b").begin_session();
    of(&both, "b").set_admin(AdminState::Draining, now);
    let without = Pool::new(Wanted::of(&["a"]).settings(), Some(&both), now);
    assert_eq!(pick(&without, Some("b"), &[], now), picked("a", Reason::Balanced, true));
    drop(both);
    let still_without = Pool::new(Wanted::of(&["a"]).settings(), Some(&without), now);
    let again = Pool::new(Wanted::of(&["a", "b"]).settings(), Some(&still_without), now);
    let b = of(&again, "b");
    assert_eq!((b.sessions(), b.health(), b.admin()), (1, Health::Unknown, AdminState::Enabled));
    drop(session);
    assert_eq!(b.sessions(), 0);
    let without = Pool::new(Wanted::of(&["a"]).settings(), Some(&again), now);
    drop(again);
    let pruned = Pool::new(Wanted::of(&["a"]).settings(), Some(&without), now);
    assert!(pruned.departed.is_empty(), "nothing is kept for who has no sessions");
}

#[test]
fn probes_switched_off_leave_nobody_waiting() {
    let now = clock::now();
    let old = Wanted::of(&["a"]).fresh(now);
    let new = Pool::new(Wanted { is_probed: false, ..Wanted::of(&["a"]) }.settings(), Some(&old), now);
    assert_eq!(pick(&new, None, &[], now), picked("a", Reason::Balanced, true));
}

#[test]
fn least_sessions_weighs_sessions_and_requests_and_least_requests_only_requests() {
    let now = clock::now();
    let mut wanted = Wanted::of(&["a", "b"]);
    wanted.backends[1].1 = 3;
    let pool = wanted.pool(now);
    let _load = (of(&pool, "a").begin_session(), of(&pool, "b").begin_session(), of(&pool, "b").begin_request());
    assert_eq!(pick(&pool, None, &[], now).expect("a pick").0, "b", "2/3 is less than 1/1");
    let _more = (of(&pool, "b").begin_session(), of(&pool, "b").begin_session());
    assert_eq!(pick(&pool, None, &[], now).expect("a pick").0, "a", "4/3 is more than 1/1");
    wanted.policy = Policy::LeastRequests;
    let pool = Pool::new(wanted.settings(), Some(&pool), now);
    assert_eq!(pick(&pool, None, &[], now).expect("a pick").0, "a", "sessions do not count");
}

fn sequence(pool: &Pool, tried: &[&str], n: usize, now: Instant) -> String {
    (0..n).map(|_| pick(pool, None, tried, now).expect("a pick").0).collect()
}

#[test]
fn turns_are_smooth_and_a_reload_does_not_restart_them() {
    let now = clock::now();
    let wanted = Wanted { policy: Policy::RoundRobin, ..Wanted::of(&["a", "b", "c"]) };
    let mut pool = wanted.pool(now);
    assert_eq!(sequence(&pool, &[], 7, now), "abcabca");
    pool = Pool::new(wanted.settings(), Some(&pool), now);
    assert_eq!(sequence(&pool, &[], 5, now), "bcabc");
    let mut weighted = wanted.clone();
    weighted.backends[0].1 = 5;
    assert_eq!(sequence(&weighted.pool(now), &[], 14, now), "aaabcaaaaabcaa");
}

#[test]
fn who_comes_back_gets_its_share_and_no_more() {
    let now = clock::now();
    let pool = Wanted { policy: Policy::RoundRobin, ..Wanted::of(&["a", "b", "c"]) }.pool(now);
    assert_eq!(sequence(&pool, &["a"], 1000, now).matches('a').count(), 0);
    let after = sequence(&pool, &[], 30, now);
    let counted = |k| after.matches(k).count();
    assert!((10..=11).contains(&counted('a')) && counted('b') >= 9 && counted('c') >= 9, "{after}");
}

#[test]
fn the_round_goes_on_when_its_time_line_wraps() {
    let now = clock::now();
    let pool = Wanted { policy: Policy::RoundRobin, ..Wanted::of(&["a", "b"]) }.pool(now);
    for start in [u64::MAX - (1 << 25), (1 << 63) - (1 << 25)] {
        pool.turns.set(start);
        for backend in pool.backends() {
            backend.counts().turn.store(start, std::sync::atomic::Ordering::Relaxed);
        }
        assert_eq!(sequence(&pool, &[], 10, now), "ababababab");
    }
}

#[test]
fn threads_that_pick_together_still_share_fairly() {
    let now = clock::now();
    let mut wanted = Wanted { policy: Policy::RoundRobin, ..Wanted::of(&["a", "b", "c"]) };
    wanted.backends[2].1 = 2;
    let pool = wanted.pool(now);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    drop(pool.pick(None, &[], now).expect("a pick").backend.begin_request());
                }
            });
        }
    });
    let counts: Vec<_> = pool.backends().iter().map(|b| b.requests()).collect();
    assert_eq!(counts.iter().sum::<u64>(), 20_000);
    for (count, share) in counts.into_iter().zip([5_000, 5_000, 10_000]) {
        assert!(count.abs_diff(share) <= 40, "{count} of {share}");
    }
    assert!(pool.backends().iter().all(|b| b.in_flight() == 0));
}

#[test]
fn keys_are_found_whatever_their_order() {
    let pool = Wanted::of(&["m", "z", "a", "q"]).fresh(clock::now());
    for key in ["a", "m", "q", "z"] {
        assert_eq!(of(&pool, key).key().as_str(), key);
    }
    for key in ["", "b", "zz"] {
        assert!(pool.backend(key).is_none());
    }
}

proptest! {
    /// At every moment each candidate has had its share of the turns, give or take one or two.
    #[test]
    fn turns_follow_weights_for_any_set_of_candidates(
        weights in prop::collection::vec(1u32..=12, 1..7), excluded in prop::collection::vec(any::<bool>(), 7),
    ) {
        let now = clock::now();
        let keys = ["a", "b", "c", "d", "e", "f", "g"];
        let backends: Vec<_> = weights.iter().zip(keys).map(|(&w, k)| (k, w, AdminState::Enabled)).collect();
        let mut wanted = Wanted { policy: Policy::RoundRobin, ..Wanted::of(&[]) };
        wanted.backends = backends.clone();
        let pool = wanted.pool(now);
        let out: Vec<_> = keys.iter().zip(&excluded).filter(|(_, out)| **out).map(|(k, _)| *k).collect();
        let inside: Vec<_> = backends.iter().filter(|(k, ..)| !out.contains(k)).collect();
        prop_assume!(!inside.is_empty());
        // Before, everybody took part: that must not matter.
        sequence(&pool, &[], 5, now);
        let total: u32 = inside.iter().map(|(_, w, _)| w).sum();
        let mut counts: HashMap<String, f64> = HashMap::new();
        for n in 1..=300 {
            *counts.entry(pick(&pool, None, &out, now).expect("a pick").0).or_default() += 1.0;
            for (k, w, _) in &inside {
                let share = f64::from(n) * f64::from(*w) / f64::from(total);
                let count = counts.get(*k).copied().unwrap_or_default();
                prop_assert!((count - share).abs() <= 3.0, "{} of {} for {} after {}", count, share, k, n);
            }
        }
        prop_assert!(out.iter().all(|k| !counts.contains_key(*k)));
    }

    #[test]
    fn sessions_spread_by_weight(weights in prop::collection::vec(1u32..=8, 1..6), n in 1u32..200) {
        let now = clock::now();
        let mut wanted = Wanted::of(&[]);
        wanted.backends = weights.iter().zip(["a", "b", "c", "d", "e"]).map(|(&w, k)| (k, w, AdminState::Enabled)).collect();
        let pool = wanted.pool(now);
        let sessions: Vec<_> = (0..n).map(|_| pool.pick(None, &[], now).expect("a pick").backend.begin_session()).collect();
        let total: u32 = weights.iter().sum();
        for backend in pool.backends() {
            let share = f64::from(n) * f64::from(backend.weight()) / f64::from(total);
            // Whoever has the least load next takes one session: nobody is ahead of the level by more than that.
            let slack = 1.0 + f64::from(backend.weight()) * weights.len() as f64 / f64::from(total);
            prop_assert!((backend.sessions() as f64 - share).abs() <= slack.max(weights.len() as f64), "{:?}", weights);
        }
        drop(sessions);
        prop_assert!(pool.backends().iter().all(|b| b.sessions() == 0));
    }
}
