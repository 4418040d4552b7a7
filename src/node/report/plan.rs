//! When a report is rendered again: Posit Connect's kinds of schedules, in a time zone. Pure.
//!
//! Minutes and hours are counted as they pass. Everything else is a day and a time on the clock on the wall: where the clock
//! skips that time it is as much later as the clock skips, and where it comes twice the first one counts (RFC 5545 §3.3.5).

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Bytes of a schedule as clients write it.
const WRITTEN_MAX: usize = 1_000;
/// Days that are looked through for the next one: more than any period.
const DAYS_MAX: i32 = 12 * 366;

/// What recurs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Every {
    /// So many minutes.
    Minutes(i64),
    /// So many hours.
    Hours(i64),
    /// So many days.
    Days(i64),
    /// Monday to Friday.
    Workdays,
    /// So many weeks.
    Weeks(i64),
    /// These days of the week, 0 is Sunday.
    DaysOfWeek(Vec<i64>),
    /// The 1st and the 15th; else the 14th and the last.
    HalfMonths {
        /// Which.
        is_first: bool,
    },
    /// A day of every so many months; the last one where a month is shorter.
    DayOfMonths {
        /// Months.
        n: i64,
        /// 1 to 31.
        day: i64,
    },
    /// A day of the week of every so many months.
    WeekdayOfMonths {
        /// Months.
        n: i64,
        /// 0 is Sunday.
        day: i64,
        /// The first, second, third, fourth one; 5 is the last one.
        week: i64,
    },
    /// So many years.
    Years(i64),
}

/// A schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What recurs.
    pub every: Every,
    /// The first time; what is on the clock then is what recurs.
    pub start: Timestamp,
    /// Whose clock.
    pub zone: TimeZone,
}

/// What the kinds say, each its own.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Written {
    n: Option<i64>,
    day: Option<i64>,
    week: Option<i64>,
    days: Option<Vec<i64>>,
    first: Option<bool>,
}

impl Every {
    /// Reads what clients write: a type and its JSON text.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    pub fn read(kind: &str, text: &str) -> Result<Self, String> {
        if text.len() > WRITTEN_MAX {
            return Err(format!("`schedule` has more than {WRITTEN_MAX} bytes"));
        }
        let wrong = |e| format!("`schedule` is no JSON of a schedule, such as {{\"N\": 1}}: {e}");
        let told: Written = serde_json::from_str(if text.is_empty() { "{}" } else { text }).map_err(wrong)?;
        let within = |name: &str, value: Option<i64>, least: i64, most: i64| match value {
            Some(value) if (least..=most).contains(&value) => Ok(value),
            _ => Err(format!("a schedule of type `{kind}` wants `{name}` from {least} to {most}")),
        };
        let n = |most| within("N", told.n, 1, most);
        Ok(match kind {
            "minute" => Self::Minutes(n(100_000)?),
            "hour" => Self::Hours(n(10_000)?),
            "day" => Self::Days(n(1_000)?),
            "weekday" => Self::Workdays,
            "week" => Self::Weeks(n(100)?),
            "dayofweek" => {
                let mut days = told.days.unwrap_or_default();
                days.sort_unstable();
                days.dedup();
                if days.is_empty() || days.iter().any(|day| !(0..=6).contains(day)) {
                    return Err("a schedule of type `dayofweek` wants `Days`, each from 0 (Sunday) to 6".to_owned());
                }
                Self::DaysOfWeek(days)
            }
            "semimonth" => Self::HalfMonths { is_first: told.first.unwrap_or(true) },
            "dayofmonth" => Self::DayOfMonths { n: n(120)?, day: within("Day", told.day, 1, 31)? },
            "dayweekofmonth" => Self::WeekdayOfMonths {
                n: n(120)?,
                day: within("Day", told.day, 0, 6)?,
                // Some clients count from 0.
                week: within("Week", told.week, 0, 5)?.max(1),
            },
            "year" => Self::Years(n(10)?),
            _ => {
                return Err(format!(
                    "`{kind}` is no type of schedule: minute, hour, day, weekday, week, dayofweek, semimonth, dayofmonth, \
                     dayweekofmonth or year"
                ));
            }
        })
    }

    /// As it was read: the type.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Minutes(_) => "minute",
            Self::Hours(_) => "hour",
            Self::Days(_) => "day",
            Self::Workdays => "weekday",
            Self::Weeks(_) => "week",
            Self::DaysOfWeek(_) => "dayofweek",
            Self::HalfMonths { .. } => "semimonth",
            Self::DayOfMonths { .. } => "dayofmonth",
            Self::WeekdayOfMonths { .. } => "dayweekofmonth",
            Self::Years(_) => "year",
        }
    }

    /// As it was read: the JSON text.
    pub fn written(&self) -> String {
        let value: Value = match self {
            Self::Minutes(n) | Self::Hours(n) | Self::Days(n) | Self::Weeks(n) | Self::Years(n) => json!({ "N": n }),
            Self::Workdays => json!({}),
            Self::DaysOfWeek(days) => json!({ "Days": days }),
            Self::HalfMonths { is_first } => json!({ "First": is_first }),
            Self::DayOfMonths { n, day } => json!({ "N": n, "Day": day }),
            Self::WeekdayOfMonths { n, day, week } => json!({ "N": n, "Day": day, "Week": week }),
        };
        value.to_string()
    }

    /// For people: `every 2 weeks`.
    pub fn told(&self) -> String {
        let every = |n: i64, unit: &str| if n == 1 { format!("every {unit}") } else { format!("every {n} {unit}s") };
        let day = |day: i64| weekday(day).map_or_else(String::new, name);
        match self {
            Self::Minutes(n) => every(*n, "minute"),
            Self::Hours(n) => every(*n, "hour"),
            Self::Days(n) => every(*n, "day"),
            Self::Workdays => "Monday to Friday".to_owned(),
            Self::Weeks(n) => every(*n, "week"),
            Self::DaysOfWeek(days) => days.iter().map(|n| day(*n)).collect::<Vec<_>>().join(", "),
            Self::HalfMonths { is_first: true } => "on the 1st and 15th".to_owned(),
            Self::HalfMonths { is_first: false } => "on the 14th and the last day of the month".to_owned(),
            Self::DayOfMonths { n, day } => format!("{} on day {day}", every(*n, "month")),
            Self::WeekdayOfMonths { n, day: on, week } => {
                let which = ["first", "second", "third", "fourth", "last"];
                let which = usize::try_from(week - 1).ok().and_then(|n| which.get(n)).unwrap_or(&"last");
                format!("{} on the {which} {}", every(*n, "month"), day(*on))
            }
            Self::Years(n) => every(*n, "year"),
        }
    }

    /// Whether it is on this day, where it begins on that one. Not for minutes and hours.
    fn is_on(&self, date: Date, first: Date) -> bool {
        let days = (date - first).get_days();
        let months = i64::from(date.year() - first.year()) * 12 + i64::from(date.month() - first.month());
        let day = i64::from(date.day());
        let last = i64::from(date.days_in_month());
        let on = i64::from(date.weekday().to_sunday_zero_offset());
        match self {
            Self::Minutes(_) | Self::Hours(_) => true,
            Self::Days(n) => i64::from(days) % n == 0,
            Self::Workdays => (1..=5).contains(&on),
            Self::Weeks(n) => i64::from(days) % (7 * n) == 0,
            Self::DaysOfWeek(days) => days.contains(&on),
            Self::HalfMonths { is_first: true } => day == 1 || day == 15,
            Self::HalfMonths { is_first: false } => day == 14 || day == last,
            Self::DayOfMonths { n, day: wanted } => months % n == 0 && day == *wanted.min(&last),
            Self::WeekdayOfMonths { n, day: wanted, week } => {
                let is_week = if *week == 5 { day + 7 > last } else { (day - 1) / 7 + 1 == *week };
                months % n == 0 && on == *wanted && is_week
            }
            Self::Years(n) => {
                let years = i64::from(date.year() - first.year());
                years % n == 0 && date.month() == first.month() && day == i64::from(first.day()).min(last)
            }
        }
    }
}

impl Plan {
    /// The first time after this one; `None`: there is none a clock could show.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        if self.start > after {
            let first = self.start.to_zoned(self.zone.clone()).date();
            if self.every.is_on(first, first) {
                return Some(self.start);
            }
        }
        let step = match &self.every {
            Every::Minutes(n) => Some(SignedDuration::from_mins(*n)),
            Every::Hours(n) => Some(SignedDuration::from_hours(*n)),
            _ => None,
        };
        if let Some(step) = step {
            let passed = after.duration_since(self.start).as_secs().div_euclid(step.as_secs());
            let whole = SignedDuration::from_secs(step.as_secs().checked_mul(passed + 1)?);
            return self.start.checked_add(whole).ok();
        }
        let start = self.start.to_zoned(self.zone.clone());
        let (first, time) = (start.date(), start.time());
        // The clock may have been put back over midnight.
        let from = after.max(self.start).to_zoned(self.zone.clone()).date().yesterday().ok()?.max(first);
        let mut date = from;
        for _ in 0..DAYS_MAX {
            if self.every.is_on(date, first) {
                let at = date.to_datetime(time).to_zoned(self.zone.clone()).ok()?.timestamp();
                if at > after && at >= self.start {
                    return Some(at);
                }
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    /// Reads the time zone's name (IANA).
    ///
    /// # Errors
    /// There is none of this name.
    pub fn zone(name: &str) -> Result<TimeZone, String> {
        let zone = if name.is_empty() { "UTC" } else { name };
        TimeZone::get(zone).map_err(|_| format!("`{zone}` is no time zone: such as `UTC` or `Europe/Zurich`"))
    }
}

fn weekday(day: i64) -> Option<Weekday> {
    Weekday::from_sunday_zero_offset(i8::try_from(day).ok()?).ok()
}

fn name(day: Weekday) -> String {
    format!("{day:?}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The next times, on the clock of the zone.
    fn times(kind: &str, text: &str, start: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let zone = Plan::zone(zone).unwrap();
        let start: jiff::civil::DateTime = start.parse().unwrap();
        let start = start.to_zoned(zone.clone()).unwrap().timestamp();
        let plan = Plan { every: Every::read(kind, text).unwrap(), start, zone: zone.clone() };
        let after: jiff::civil::DateTime = after.parse().unwrap();
        let mut at = after.to_zoned(zone.clone()).unwrap().timestamp();
        let mut all = Vec::new();
        for _ in 0..count {
            at = plan.next(at).unwrap();
            all.push(at.to_zoned(zone.clone()).strftime("%a %F %H:%M%:z").to_string());
        }
        all
    }

    #[test]
    fn each_kind_recurs_as_it_says() {
        let of = |kind, text| times(kind, text, "2026-01-30 09:30", "UTC", "2026-02-10 12:00", 3);
        let short = |all: Vec<String>| all.iter().map(|at| at[..20].to_owned()).collect::<Vec<_>>();
        for (kind, text, next) in [
            ("minute", r#"{"N":45}"#, ["Tue 2026-02-10 12:30", "Tue 2026-02-10 13:15", "Tue 2026-02-10 14:00"]),
            ("hour", r#"{"N":5}"#, ["Tue 2026-02-10 15:30", "Tue 2026-02-10 20:30", "Wed 2026-02-11 01:30"]),
            ("day", r#"{"N":4}"#, ["Wed 2026-02-11 09:30", "Sun 2026-02-15 09:30", "Thu 2026-02-19 09:30"]),
            ("weekday", "{}", ["Wed 2026-02-11 09:30", "Thu 2026-02-12 09:30", "Fri 2026-02-13 09:30"]),
            ("week", r#"{"N":2}"#, ["Fri 2026-02-13 09:30", "Fri 2026-02-27 09:30", "Fri 2026-03-13 09:30"]),
            (
                "dayofweek",
                r#"{"Days":[6,0]}"#,
                ["Sat 2026-02-14 09:30", "Sun 2026-02-15 09:30", "Sat 2026-02-21 09:30"],
            ),
            (
                "semimonth",
                r#"{"First":true}"#,
                ["Sun 2026-02-15 09:30", "Sun 2026-03-01 09:30", "Sun 2026-03-15 09:30"],
            ),
            (
                "semimonth",
                r#"{"First":false}"#,
                ["Sat 2026-02-14 09:30", "Sat 2026-02-28 09:30", "Sat 2026-03-14 09:30"],
            ),
            (
                "dayofmonth",
                r#"{"N":1,"Day":31}"#,
                ["Sat 2026-02-28 09:30", "Tue 2026-03-31 09:30", "Thu 2026-04-30 09:30"],
            ),
            (
                "dayweekofmonth",
                r#"{"N":2,"Day":1,"Week":1}"#,
                ["Mon 2026-03-02 09:30", "Mon 2026-05-04 09:30", "Mon 2026-07-06 09:30"],
            ),
            (
                "dayweekofmonth",
                r#"{"N":1,"Day":5,"Week":5}"#,
                ["Fri 2026-02-27 09:30", "Fri 2026-03-27 09:30", "Fri 2026-04-24 09:30"],
            ),
            ("year", r#"{"N":1}"#, ["Sat 2027-01-30 09:30", "Sun 2028-01-30 09:30", "Tue 2029-01-30 09:30"]),
        ] {
            assert_eq!(short(of(kind, text)), next, "{kind} {text}");
        }
        let leap = times("year", r#"{"N":1}"#, "2024-02-29 08:00", "UTC", "2026-01-01 00:00", 3);
        assert_eq!(short(leap), ["Sat 2026-02-28 08:00", "Sun 2027-02-28 08:00", "Tue 2028-02-29 08:00"]);
    }

    #[test]
    fn the_clock_on_the_wall_is_what_counts_when_it_is_changed() {
        // 02:00 becomes 03:00 on 29 March 2026, and 03:00 becomes 02:00 on 25 October.
        let daily = |start, after| times("day", r#"{"N":1}"#, start, "Europe/Zurich", after, 3);
        assert_eq!(
            daily("2026-01-01 02:30", "2026-03-27 12:00"),
            ["Sat 2026-03-28 02:30+01:00", "Sun 2026-03-29 03:30+02:00", "Mon 2026-03-30 02:30+02:00"]
        );
        assert_eq!(
            daily("2026-01-01 02:30", "2026-10-24 01:00"),
            ["Sat 2026-10-24 02:30+02:00", "Sun 2026-10-25 02:30+02:00", "Mon 2026-10-26 02:30+01:00"],
            "once"
        );
        assert_eq!(
            daily("2026-01-01 09:00", "2026-10-24 12:00"),
            ["Sun 2026-10-25 09:00+01:00", "Mon 2026-10-26 09:00+01:00", "Tue 2026-10-27 09:00+01:00"]
        );
        // Hours pass as they do.
        assert_eq!(
            times("hour", r#"{"N":1}"#, "2026-01-01 00:00", "Europe/Zurich", "2026-10-25 01:30", 3),
            ["Sun 2026-10-25 02:00+02:00", "Sun 2026-10-25 02:00+01:00", "Sun 2026-10-25 03:00+01:00"]
        );
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_what_helps() {
        for (kind, text, words) in [
            ("fortnight", "{}", "is no type"),
            ("day", "{}", "wants `N` from 1"),
            ("day", r#"{"N":0}"#, "wants `N` from 1"),
            ("day", r#"{"N":"x"}"#, "no JSON of a schedule"),
            ("dayofweek", r#"{"Days":[]}"#, "wants `Days`"),
            ("dayofweek", r#"{"Days":[7]}"#, "wants `Days`"),
            ("dayofmonth", r#"{"N":1,"Day":32}"#, "`Day` from 1 to 31"),
        ] {
            let refused = Every::read(kind, text).unwrap_err();
            assert!(refused.contains(words), "{kind} {text}: {refused}");
        }
        assert!(Plan::zone("Mars/Olympus").unwrap_err().contains("is no time zone"));
    }

    proptest! {
        #[test]
        fn next_is_later_and_stays_the_same_until_it_comes(
            which in 0_usize..10, n in 1_i64..9, start in 0_i64..4_000_000_000, after in 0_i64..4_000_000_000,
            zone in prop::sample::select(vec!["UTC", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"]),
        ) {
            let every = match which {
                0 => Every::Minutes(n),
                1 => Every::Hours(n),
                2 => Every::Days(n),
                3 => Every::Workdays,
                4 => Every::Weeks(n),
                5 => Every::DaysOfWeek(vec![n % 7]),
                6 => Every::HalfMonths { is_first: n % 2 == 0 },
                7 => Every::DayOfMonths { n, day: n * 3 },
                8 => Every::WeekdayOfMonths { n, day: n % 7, week: n % 5 + 1 },
                _ => Every::Years(n),
            };
            prop_assert_eq!(&Every::read(every.kind(), &every.written()).unwrap(), &every);
            let at = |seconds| Timestamp::from_second(seconds).unwrap();
            let plan = Plan { every, start: at(start), zone: Plan::zone(zone).unwrap() };
            let next = plan.next(at(after)).unwrap();
            prop_assert!(next > at(after) && next >= at(start));
            // Asked again at any time before, it is the same one.
            let between = at(after).as_second() + (next.as_second() - after) / 2;
            prop_assert_eq!(plan.next(at(between)).unwrap(), next);
        }
    }
}
