//! Up and down: one state machine for probes and for what real requests teach. Time is an argument.
//!
//! | verdict | probe ok | probe failed | refused | timed out, broken | answered |
//! |---|---|---|---|---|---|
//! | unknown | up | down | down | counts towards `fall` | – |
//! | up | ends every streak | counts towards `fall` | down | counts towards `fall` | ends the requests' streak |
//! | down | counts towards `rise` | ends the streak | ends the streak | – | – (no probes: up) |
//! | leaving | up | counts towards `fall` | down | counts towards `fall` | ends the requests' streak |
//!
//! Whatever it was, a backend that says that it leaves is leaving.
//!
//! Failures of probes and of requests add up. An answer to a request says nothing about failed probes, since a node may
//! serve its old clients and refuse new ones on purpose; and a late answer never lifts a probed backend from down. A
//! pool without probes starts up and has only its requests to learn from: a down backend gets a single request on trial
//! now and then (see [`Cell::claim_trial`]).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::proxy::Probe;

/// Whether a backend works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    /// Probed, but no verdict yet.
    Unknown,
    /// Works.
    Up,
    /// Does not.
    Down,
    /// Serves those it has and wants nobody new, by its own word.
    Leaving,
}

/// What one probe or one request taught us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The probe was answered as it should be.
    ProbeOk,
    /// It was not, or not in time.
    ProbeFailed,
    /// Nobody listens: connection refused, unix socket gone.
    Refused,
    /// No connection or no answer in time.
    TimedOut,
    /// Closed before the first byte of an answer, or an answer that is none.
    Broken,
    /// A real answer, whatever its status says.
    Answered,
    /// It says that it leaves: see [`crate::types::LEAVING`].
    Leaving,
}

/// A change of verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// What it was.
    pub from: Health,
    /// What it is now.
    pub to: Health,
}

/// How much it takes to change a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    rise: u16,
    fall: u16,
    pub(super) is_probed: bool,
}

impl Rules {
    pub(super) fn of(probe: Option<&Probe>) -> Self {
        let bounded = |n: u32| u16::try_from(n).unwrap_or(STREAK_MAX).clamp(1, STREAK_MAX);
        match probe {
            Some(p) => Self { rise: bounded(p.rise), fall: bounded(p.fall), is_probed: true },
            None => Self { rise: 1, fall: UNPROBED_FALL, is_probed: false },
        }
    }
}

/// How long after it went down a backend is asked often.
const RETURN_EXPECTED: Duration = Duration::from_secs(60);

/// The verdict on one backend at one address, shared by all threads and carried across reloads.
#[derive(Debug)]
pub(super) struct Cell {
    /// A packed [`Verdict`], so that requests read and change it without a lock.
    verdict: AtomicU32,
    born: Instant,
    /// Nanoseconds after `born`: of the last change.
    changed: AtomicU64,
    /// Nanoseconds after `born`: when a down backend without probes last failed or was last given a trial.
    tried: AtomicU64,
}

impl Cell {
    pub(super) fn new(rules: Rules, now: Instant) -> Self {
        let health = if rules.is_probed { Health::Unknown } else { Health::Up };
        Self {
            verdict: AtomicU32::new(Verdict::fresh(health).pack()),
            born: now,
            changed: AtomicU64::new(0),
            tried: AtomicU64::new(0),
        }
    }

    /// For a pool whose probes were switched off: what nobody will probe counts as up.
    pub(super) fn stop_waiting_for_probes(&self, now: Instant) {
        self.change(now, |v| match v.health {
            Health::Unknown | Health::Leaving => Verdict::fresh(Health::Up),
            Health::Up | Health::Down => v,
        });
    }

    pub(super) fn health(&self) -> Health {
        self.load().health
    }

    pub(super) fn since(&self) -> Instant {
        self.born + Duration::from_nanos(self.changed.load(Ordering::Relaxed))
    }

    pub(super) fn has_failure_streak(&self) -> bool {
        self.load().failures() > 0
    }

    /// Nothing casts doubt on the verdict. A backend that went down a moment ago is expected back: programs are restarted
    /// within seconds, and their users wait.
    pub(super) fn is_settled(&self, now: Instant) -> bool {
        let verdict = self.load();
        let is_fresh = now.saturating_duration_since(self.since()) < RETURN_EXPECTED;
        verdict.is_settled() && !(verdict.health == Health::Down && is_fresh)
    }

    pub(super) fn observe(&self, outcome: Outcome, rules: Rules, now: Instant) -> Option<Transition> {
        let transition = self.change(now, |v| v.observe(outcome, rules));
        let failed = matches!(outcome, Outcome::Refused | Outcome::TimedOut | Outcome::Broken);
        if failed && self.health() == Health::Down {
            self.tried.fetch_max(self.nanos(now), Ordering::Relaxed);
        }
        transition
    }

    /// Whether the caller may send one request on trial to this down backend without probes: `after` has passed since
    /// its last failure or trial, and nobody else claimed this trial.
    pub(super) fn claim_trial(&self, after: Duration, now: Instant) -> bool {
        let (tried, now) = (self.tried.load(Ordering::Relaxed), self.nanos(now));
        self.health() == Health::Down
            && now.saturating_sub(tried) >= nanos(after)
            && self.tried.compare_exchange(tried, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn change(&self, now: Instant, next: impl Fn(Verdict) -> Verdict) -> Option<Transition> {
        let write = |word| {
            let (before, after) = (Verdict::unpack(word), next(Verdict::unpack(word)));
            // Most answers change nothing; then nothing is written and no cache line moves.
            (after != before).then(|| after.pack())
        };
        let before = Verdict::unpack(self.verdict.fetch_update(Ordering::AcqRel, Ordering::Acquire, write).ok()?);
        let after = next(before);
        if before.health == after.health {
            return None;
        }
        self.changed.fetch_max(self.nanos(now), Ordering::Relaxed);
        Some(Transition { from: before.health, to: after.health })
    }

    fn load(&self) -> Verdict {
        Verdict::unpack(self.verdict.load(Ordering::Acquire))
    }

    fn nanos(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.born))
    }
}

/// The machine itself: a verdict and the streaks against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verdict {
    health: Health,
    /// Failed probes in a row, while not down.
    probe_failures: u16,
    /// Failed requests since the last good one or good probe, while not down.
    request_failures: u16,
    /// Good probes in a row, while down.
    successes: u16,
}

impl Verdict {
    fn fresh(health: Health) -> Self {
        Self { health, probe_failures: 0, request_failures: 0, successes: 0 }
    }

    fn observe(self, outcome: Outcome, rules: Rules) -> Self {
        use Health::{Down, Leaving, Unknown, Up};
        let next = match (self.health, outcome) {
            // Its probe asks again in a moment.
            (_, Outcome::Leaving) if rules.is_probed => return Self::fresh(Leaving),
            (_, Outcome::Leaving) => self,
            (Unknown | Up | Leaving, Outcome::ProbeOk) => return Self::fresh(Up),
            (Unknown, Outcome::ProbeFailed) | (Unknown | Up | Leaving, Outcome::Refused) => {
                return Self::fresh(Down);
            }
            (Up | Leaving, Outcome::ProbeFailed) => Self { probe_failures: longer(self.probe_failures), ..self },
            (Unknown | Up | Leaving, Outcome::TimedOut | Outcome::Broken) => {
                Self { request_failures: longer(self.request_failures), ..self }
            }
            (Up | Leaving, Outcome::Answered) => Self { request_failures: 0, ..self },
            (Down, Outcome::ProbeOk) => Self { successes: longer(self.successes), ..self },
            (Down, Outcome::ProbeFailed | Outcome::Refused) => Self { successes: 0, ..self },
            (Down | Unknown, Outcome::Answered) if !rules.is_probed => {
                return Self::fresh(Up);
            }
            (Down, Outcome::TimedOut | Outcome::Broken | Outcome::Answered) | (Unknown, Outcome::Answered) => self,
        };
        match next.health {
            Unknown | Up | Leaving if next.failures() >= rules.fall => Self::fresh(Down),
            Down if next.successes >= rules.rise => Self::fresh(Up),
            _ => next,
        }
    }

    fn failures(self) -> u16 {
        self.probe_failures + self.request_failures
    }

    fn is_settled(self) -> bool {
        matches!(self.health, Health::Up | Health::Down) && self.failures() == 0 && self.successes == 0
    }

    /// Two bits of health and three streaks of ten bits.
    fn pack(self) -> u32 {
        let health = match self.health {
            Health::Unknown => 0,
            Health::Up => 1,
            Health::Down => 2,
            Health::Leaving => 3,
        };
        [self.probe_failures, self.request_failures, self.successes]
            .into_iter()
            .fold(health, |word, streak| word << STREAK_BITS | u32::from(streak.min(STREAK_MAX)))
    }

    fn unpack(word: u32) -> Self {
        let streak = |place: u32| (word >> (place * STREAK_BITS)) as u16 & STREAK_MAX;
        let health = match word >> (3 * STREAK_BITS) {
            1 => Health::Up,
            2 => Health::Down,
            3 => Health::Leaving,
            _ => Health::Unknown,
        };
        Self { health, probe_failures: streak(2), request_failures: streak(1), successes: streak(0) }
    }
}

fn longer(streak: u16) -> u16 {
    (streak + 1).min(STREAK_MAX)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

const STREAK_BITS: u32 = 10;
const STREAK_MAX: u16 = (1 << STREAK_BITS) - 1;
/// Failed requests in a row that take a backend without probes down: as many as failed probes by default.
const UNPROBED_FALL: u16 = 3;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Outcome::*;
    use super::*;
    use crate::runtime::clock;

    const PROBED: Rules = Rules { rise: 2, fall: 3, is_probed: true };
    const UNPROBED: Rules = Rules { rise: 1, fall: 3, is_probed: false };

    /// The health after each outcome.
    fn walk(rules: Rules, outcomes: &[Outcome]) -> Vec<Health> {
        let now = clock::now();
        let cell = Cell::new(rules, now);
        outcomes
            .iter()
            .map(|&outcome| {
                let before = cell.health();
                let transition = cell.observe(outcome, rules, now);
                let changed = (before != cell.health()).then(|| Transition { from: before, to: cell.health() });
                assert_eq!(transition, changed, "{outcome:?}");
                cell.health()
            })
            .collect()
    }

    fn last(rules: Rules, outcomes: &[Outcome]) -> Health {
        *walk(rules, outcomes).last().expect("an outcome")
    }

    #[test]
    fn the_first_probe_decides_at_once() {
        assert_eq!(last(PROBED, &[ProbeOk]), Health::Up);
        assert_eq!(last(PROBED, &[ProbeFailed]), Health::Down);
        assert_eq!(last(PROBED, &[Answered]), Health::Unknown, "requests wait for the probe's word");
    }

    #[test]
    fn it_falls_after_three_and_rises_after_two() {
        use Health::{Down, Up};
        let outcomes = [ProbeOk, ProbeFailed, ProbeFailed, ProbeOk, ProbeFailed, ProbeFailed, ProbeFailed, ProbeOk];
        assert_eq!(walk(PROBED, &outcomes), [Up, Up, Up, Up, Up, Up, Down, Down]);
        let outcomes = [ProbeFailed, ProbeOk, ProbeFailed, ProbeOk, ProbeOk];
        assert_eq!(walk(PROBED, &outcomes), [Down, Down, Down, Down, Up]);
        let outcomes = [ProbeFailed, ProbeOk, Refused, ProbeOk, ProbeOk];
        assert_eq!(walk(PROBED, &outcomes), [Down, Down, Down, Down, Up]);
    }

    #[test]
    fn a_refused_connection_takes_it_down_at_once() {
        for rules in [PROBED, UNPROBED] {
            assert_eq!(last(rules, &[Refused]), Health::Down);
            assert_eq!(last(rules, &[ProbeOk, Refused]), Health::Down);
        }
    }

    #[test]
    fn failed_requests_and_failed_probes_add_up() {
        assert_eq!(last(PROBED, &[ProbeOk, TimedOut, ProbeFailed]), Health::Up);
        assert_eq!(last(PROBED, &[ProbeOk, TimedOut, ProbeFailed, Broken]), Health::Down);
        assert_eq!(last(PROBED, &[ProbeOk, Broken, Broken, ProbeOk, Broken, Broken]), Health::Up);
    }

    #[test]
    fn an_answer_clears_failed_requests_but_not_failed_probes() {
        assert_eq!(last(PROBED, &[ProbeOk, Broken, Broken, Answered, Broken, TimedOut]), Health::Up);
        let probes_fail = [ProbeOk, ProbeFailed, Answered, ProbeFailed, Answered, ProbeFailed];
        assert_eq!(last(PROBED, &probes_fail), Health::Down, "traffic must not hide failing probes");
    }

    #[test]
    fn an_answer_lifts_from_down_only_without_probes() {
        assert_eq!(last(PROBED, &[ProbeOk, Refused, Answered, Answered, Answered]), Health::Down);
        assert_eq!(last(UNPROBED, &[Refused, Answered]), Health::Up);
        assert_eq!(last(UNPROBED, &[Broken, TimedOut, Broken]), Health::Down);
    }

    #[test]
    fn who_says_that_it_leaves_is_leaving_until_it_says_otherwise_or_is_gone() {
        use Health::{Down, Up};
        let leaves = Leaving;
        let outcomes = [ProbeOk, leaves, Answered, leaves, ProbeOk, leaves, Refused, leaves, ProbeOk];
        let expected =
            [Up, Health::Leaving, Health::Leaving, Health::Leaving, Up, Health::Leaving, Down, Health::Leaving, Up];
        assert_eq!(walk(PROBED, &outcomes), expected);
        assert_eq!(
            walk(PROBED, &[leaves, ProbeFailed, Broken, TimedOut])[1..],
            [Health::Leaving, Health::Leaving, Down]
        );
        assert_eq!(last(UNPROBED, &[leaves]), Up, "nobody would hear of it when it is back");
        let now = clock::now();
        let cell = Cell::new(PROBED, now);
        cell.observe(leaves, PROBED, now);
        assert!(!cell.is_settled(now));
    }

    #[test]
    fn streaks_unsettle_a_verdict() {
        let now = clock::now();
        let cell = Cell::new(PROBED, now);
        let settled = |outcome| {
            cell.observe(outcome, PROBED, now);
            (cell.is_settled(now), cell.has_failure_streak())
        };
        assert_eq!(settled(Answered), (false, false), "unknown");
        assert_eq!(settled(ProbeOk), (true, false));
        assert_eq!(settled(Broken), (false, true));
        assert_eq!(settled(Answered), (true, false));
        assert_eq!(settled(Refused), (false, false), "programs are restarted within seconds");
        let later = now + RETURN_EXPECTED;
        assert!(cell.is_settled(later), "this one is away for longer");
        cell.observe(ProbeOk, PROBED, later);
        assert!(!cell.is_settled(later), "on its way up");
    }

    #[test]
    fn since_is_the_last_change_of_verdict() {
        let t0 = clock::now();
        let at = |s| t0 + Duration::from_secs(s);
        let cell = Cell::new(PROBED, t0);
        cell.observe(ProbeOk, PROBED, at(1));
        cell.observe(ProbeOk, PROBED, at(2));
        cell.observe(Broken, PROBED, at(3));
        assert_eq!(cell.since(), at(1));
        cell.observe(Refused, PROBED, at(4));
        assert_eq!(cell.since(), at(4));
    }

    #[test]
    fn one_trial_is_given_after_each_pause() {
        let t0 = clock::now();
        let at = |s| t0 + Duration::from_secs(s);
        let pause = Duration::from_secs(10);
        let cell = Cell::new(UNPROBED, t0);
        assert!(!cell.claim_trial(pause, at(100)), "up needs no trial");
        cell.observe(Refused, UNPROBED, at(100));
        assert!(!cell.claim_trial(pause, at(109)));
        assert!(cell.claim_trial(pause, at(110)));
        assert!(!cell.claim_trial(pause, at(110)), "one at a time");
        cell.observe(TimedOut, UNPROBED, at(115));
        assert!(!cell.claim_trial(pause, at(124)), "the pause begins with the failure");
        assert!(cell.claim_trial(pause, at(125)));
        cell.observe(Answered, UNPROBED, at(126));
        assert_eq!(cell.health(), Health::Up);
    }

    #[test]
    fn rules_are_bounded() {
        let probe = |rise, fall| Probe {
            kind: crate::config::proxy::ProbeKind::Tcp,
            interval: Duration::ZERO,
            fast_interval: Duration::ZERO,
            timeout: Duration::ZERO,
            rise,
            fall,
        };
        assert_eq!(Rules::of(Some(&probe(0, u32::MAX))), Rules { rise: 1, fall: STREAK_MAX, is_probed: true });
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        prop::sample::select(vec![ProbeOk, ProbeFailed, Refused, TimedOut, Broken, Answered])
    }

    proptest! {
        #[test]
        fn packing_loses_nothing(h in 0u8..3, a in 0u16..=STREAK_MAX, b in 0u16..=STREAK_MAX, c in 0u16..=STREAK_MAX) {
            let health = [Health::Unknown, Health::Up, Health::Down][usize::from(h)];
            let v = Verdict { health, probe_failures: a, request_failures: b, successes: c };
            prop_assert_eq!(Verdict::unpack(v.pack()), v);
        }

        #[test]
        fn whatever_happened_probes_have_the_last_word(
            outcomes in prop::collection::vec(outcome(), 0..60), rise in 1u16..9, fall in 1u16..9,
        ) {
            let (now, rules) = (clock::now(), Rules { rise, fall, is_probed: true });
            let cell = Cell::new(rules, now);
            for outcome in outcomes {
                cell.observe(outcome, rules, now);
                let v = cell.load();
                prop_assert!(v.health == Health::Down || (v.successes == 0 && v.failures() < fall));
                prop_assert!(v.health != Health::Down || (v.failures() == 0 && v.successes < rise));
            }
            for _ in 0..rise {
                cell.observe(ProbeOk, rules, now);
            }
            prop_assert_eq!(cell.health(), Health::Up);
            for _ in 0..fall {
                cell.observe(ProbeFailed, rules, now);
            }
            prop_assert_eq!(cell.health(), Health::Down);
        }
    }
}
