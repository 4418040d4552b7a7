//! Counters and histograms as plain atomics, and the text they are read as.
//!
//! Whoever counts holds the counter itself: no name is looked up, no label allocated, nothing locked and nothing
//! queued until somebody reads. Which metrics there are is said where they are counted.
//!
//! Why not the `metrics` crate with its Prometheus exporter: there a histogram keeps every sample in an unbounded list
//! until the next scrape, a gauge once set outlives what it told about, and the order of the output is random.

use std::fmt::{self, Write as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number of events since the process began.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Nothing counted yet.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The number now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often something took how long.
#[derive(Debug)]
pub struct Histogram {
    /// Upper bounds, inclusive, ascending.
    bounds: &'static [Duration],
    /// One entry per bound and a last one for what is longer; not cumulative.
    counts: Box<[AtomicU64]>,
    /// Microseconds: what nanoseconds of many long requests add up to would overflow within months.
    sum_us: AtomicU64,
}

impl Histogram {
    /// With the upper bounds of its buckets, inclusive, ascending; a bucket without bound is added.
    pub fn new(bounds: &'static [Duration]) -> Self {
        Self { bounds, counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum_us: AtomicU64::new(0) }
    }

    /// Counts one event that took this long.
    pub fn record(&self, took: Duration) {
        let bucket = self.bounds.partition_point(|bound| *bound < took);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Number of events.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|c| c.load(Ordering::Relaxed)).sum()
    }
}

/// Up to `N` counters, or what else counts, told apart by names from the program's text, found by walking a short list
/// without a lock.
///
/// The first event of a name claims a place. Names beyond `N` are counted as `other`.
#[derive(Debug)]
pub struct Named<K, const N: usize, V = Counter> {
    places: [OnceLock<(K, V)>; N],
    other: V,
}

impl<K: Copy + Eq, const N: usize, V: Default> Named<K, N, V> {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self { places: [const { OnceLock::new() }; N], other: V::default() }
    }

    /// The counter of this name.
    pub fn counter(&self, name: K) -> &V {
        for place in &self.places {
            let (taken, counter) = place.get_or_init(|| (name, V::default()));
            if *taken == name {
                return counter;
            }
        }
        &self.other
    }

    /// Every name that has a place with what counts for it, in order of appearance.
    pub fn named(&self) -> impl Iterator<Item = (K, &V)> {
        self.places.iter().map_while(|p| p.get()).map(|(name, counter)| (*name, counter))
    }
}

impl<K: Copy + Eq, const N: usize> Named<K, N> {
    /// Every name counted so far with its number, in order of appearance; last, as `None`, what had no place.
    pub fn values(&self) -> impl Iterator<Item = (Option<K>, u64)> {
        let other = Some(self.other.value()).filter(|n| *n > 0).map(|n| (None, n));
        self.places.iter().map_while(|p| p.get()).map(|(name, c)| (Some(*name), c.value())).chain(other)
    }
}

impl<K: Copy + Eq, const N: usize, V: Default> Default for Named<K, N, V> {
    fn default() -> Self {
        Self::new()
    }
}

/// All series of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Ends in the unit, then `_total` for counters.
    pub name: &'static str,
    /// What the numbers mean.
    pub kind: Kind,
    /// One sentence for people.
    pub help: &'static str,
}

/// What the numbers of a family mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// Declares families: the comment of each is its help text, `{…}` in it names the labels.
macro_rules! families {
    ($($(#[doc = $help:literal])+ $constant:ident = $kind:ident $name:literal;)*) => {
        $($(#[doc = $help])+ pub(super) const $constant: Family = Family {
            name: $name,
            kind: Kind::$kind,
            // The first line of the comment has the leading blank rustdoc gives it.
            help: concat!($($help),+).trim_ascii_start(),
        };)*
        /// All of them, in the order they are written in.
        #[cfg(test)]
        pub(super) const ALL: &[Family] = &[$($constant),*];
    };
}
pub(crate) use families;

/// All series being written as text: for a Prometheus server (exposition format 0.0.4), or for Carbon.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    form: Form,
}

/// Who reads it.
#[derive(Debug, Default)]
enum Form {
    #[default]
    Prometheus,
    /// Carbon's plaintext protocol: lines of path, value and time.
    Carbon {
        /// What paths begin with.
        prefix: String,
        /// What lines end in: a blank and seconds since 1970.
        end: String,
    },
}

/// One family being written.
#[derive(Debug)]
pub struct Series<'a> {
    text: &'a mut String,
    form: &'a Form,
    name: &'static str,
}

/// Characters of one part of a path for Carbon, which makes files and folders of them.
const PART_MAX: usize = 200;

/// Names and values of a series' labels, in the order they are written in.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

// === impl Exposition ===

impl Exposition {
    /// The media type of the text.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// For Carbon: `prefix.name.label.value… number at`. Names and values of labels are parts of the path, in which
    /// everything but ASCII letters, digits, `_` and `-` becomes `_`, as in what Prometheus' own libraries send to Graphite;
    /// a histogram is its `_bucket`, `_sum` and `_count`. `at`: seconds since 1970.
    pub fn for_carbon(prefix: &str, at: u64) -> Self {
        Self { text: String::new(), form: Form::Carbon { prefix: prefix.to_owned(), end: format!(" {at}") } }
    }

    /// Begins a family. A family without series is written too: what could be counted is worth knowing.
    pub fn family(&mut self, family: &Family) -> Series<'_> {
        let Family { name, kind, help } = family;
        let (text, form) = (&mut self.text, &self.form);
        if let Form::Carbon { .. } = form {
            return Series { text, form, name };
        }
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Series { text, form, name }
    }

    /// The text.
    pub fn finish(self) -> String {
        self.text
    }
}

impl Series<'_> {
    /// One series of a counter or gauge.
    pub fn sample(&mut self, labels: Labels<'_>, value: impl fmt::Display) {
        self.line("", labels, None, value);
    }

    /// One series of a histogram.
    pub fn histogram(&mut self, labels: Labels<'_>, histogram: &Histogram) {
        let mut count = 0;
        for (bound, in_bucket) in histogram.bounds.iter().zip(&histogram.counts) {
            count += in_bucket.load(Ordering::Relaxed);
            self.line("_bucket", labels, Some(&bound.as_secs_f64().to_string()), count);
        }
        // The same numbers once more would be a different moment: count and buckets must agree.
        count += histogram.counts[histogram.bounds.len()].load(Ordering::Relaxed);
        self.line("_bucket", labels, Some("+Inf"), count);
        let sum = Duration::from_micros(histogram.sum_us.load(Ordering::Relaxed));
        self.line("_sum", labels, None, sum.as_secs_f64());
        self.line("_count", labels, None, count);
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, le: Option<&str>, value: impl fmt::Display) {
        if let Form::Carbon { prefix, end } = self.form {
            let _ = write!(self.text, "{prefix}.{}{suffix}", self.name);
            for (name, value) in labels.iter().copied().chain(le.map(|le| ("le", le))) {
                self.part(name);
                self.part(value);
            }
            let _ = writeln!(self.text, " {value}{end}");
            return;
        }
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        let mut separator = '{';
        for (name, value) in labels.iter().copied().chain(le.map(|le| ("le", le))) {
            self.text.push(separator);
            self.text.push_str(name);
            self.text.push_str("=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// One more part of a path.
    fn part(&mut self, part: &str) {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        self.text.push('.');
        self.text.extend(part.chars().take(PART_MAX).map(|c| if is_plain(c) { c } else { '_' }));
        if part.is_empty() {
            self.text.push('_');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_reads_cumulatively_and_its_bounds_are_inclusive() {
        const BOUNDS: &[Duration] = &[Duration::from_millis(5), Duration::from_secs(1)];
        let histogram = Histogram::new(BOUNDS);
        for millis in [1, 5, 6, 1_000, 4_000] {
            histogram.record(Duration::from_millis(millis));
        }
        let mut text = Exposition::default();
        let family = Family { name: "x_seconds", kind: Kind::Histogram, help: "Time." };
        text.family(&family).histogram(&[("pool", "a")], &histogram);
        insta::assert_snapshot!(text.finish(), @r#"
        # HELP x_seconds Time.
        # TYPE x_seconds histogram
        x_seconds_bucket{pool="a",le="0.005"} 2
        x_seconds_bucket{pool="a",le="1"} 4
        x_seconds_bucket{pool="a",le="+Inf"} 5
        x_seconds_sum{pool="a"} 5.012
        x_seconds_count{pool="a"} 5
        "#);
    }

    #[test]
    fn label_values_are_escaped() {
        let mut text = Exposition::default();
        let family = Family { name: "x_total", kind: Kind::Counter, help: "Things." };
        text.family(&family).sample(&[("path", "C:\\ \"x\"\ny")], 1);
        assert!(text.finish().ends_with("x_total{path=\"C:\\\\ \\\"x\\\"\\ny\"} 1\n"));
    }

    #[test]
    fn carbon_gets_paths_without_anything_that_would_divide_them() {
        const BOUNDS: &[Duration] = &[Duration::from_micros(2_500)];
        let histogram = Histogram::new(BOUNDS);
        histogram.record(Duration::from_secs(2));
        let mut text = Exposition::for_carbon("prod.node-a", 1_700_000_000);
        let family = Family { name: "x_total", kind: Kind::Counter, help: "Things." };
        text.family(&family).sample(&[("path", "a.b c/\u{e9}\n-_"), ("empty", "")], 1);
        text.family(&family).sample(&[], 0.25);
        let family = Family { name: "y_seconds", kind: Kind::Histogram, help: "Time." };
        text.family(&family).histogram(&[("pool", "a")], &histogram);
        insta::assert_snapshot!(text.finish(), @r"
        prod.node-a.x_total.path.a_b_c___-_.empty._ 1 1700000000
        prod.node-a.x_total 0.25 1700000000
        prod.node-a.y_seconds_bucket.pool.a.le.0_0025 0 1700000000
        prod.node-a.y_seconds_bucket.pool.a.le._Inf 1 1700000000
        prod.node-a.y_seconds_sum.pool.a 2 1700000000
        prod.node-a.y_seconds_count.pool.a 1 1700000000
        ");
    }

    #[test]
    fn names_beyond_the_last_place_are_counted_together() {
        let named = Named::<&'static str, 2>::new();
        for name in ["a", "b", "a", "c", "d"] {
            named.counter(name).increment();
        }
        assert_eq!(named.values().collect::<Vec<_>>(), [(Some("a"), 2), (Some("b"), 1), (None, 2)]);
    }

    #[test]
    fn threads_that_meet_a_name_together_count_in_one_place() {
        let named = Named::<&'static str, 8>::new();
        let names = ["a", "b", "c", "d"];
        std::thread::scope(|scope| {
            for shift in 0..4 {
                let named = &named;
                scope.spawn(move || {
                    for turn in 0..1_000 {
                        named.counter(names[(turn + shift) % names.len()]).increment();
                    }
                });
            }
        });
        let mut values: Vec<_> = named.values().collect();
        values.sort_unstable();
        assert_eq!(values, names.map(|name| (Some(name), 1_000)));
    }
}
