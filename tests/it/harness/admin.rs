//! What `/metrics` says.

use std::collections::{BTreeMap, BTreeSet};

/// Prometheus text, read.
pub struct Metrics {
    samples: Vec<Sample>,
    /// The text itself.
    pub text: String,
}

struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    pub fn parse(text: String) -> Self {
        let samples = text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).map(sample).collect();
        Self { samples, text }
    }

    /// The sum over all samples of this name that have these labels; 0 when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |s: &&Sample| s.name == name && labels.iter().all(|(k, v)| s.labels.get(*k).is_some_and(|x| x == v));
        self.samples.iter().filter(fits).map(|s| s.value).sum()
    }

    /// Asserts that a name is there at all, then [`Self::sum`].
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        assert!(self.samples.iter().any(|s| s.name == name), "no metric {name} in:\n{}", self.text);
        self.sum(name, labels)
    }

    /// Every sample's name with the names of its labels, sorted, each once.
    pub fn shapes(&self) -> Vec<String> {
        let mut shapes: Vec<_> = self
            .samples
            .iter()
            .map(|s| format!("{}{{{}}}", s.name, s.labels.keys().map(String::as_str).collect::<Vec<_>>().join(",")))
            .collect();
        shapes.sort();
        shapes.dedup();
        shapes
    }

    /// Asserts what the format demands (exposition format 0.0.4) and `promtool check metrics` looks for: every family is
    /// declared once and before its samples, which stand together; no series is there twice; counters, and only they, end
    /// in `_total`; buckets are cumulative.
    pub fn strict(&self) -> &Self {
        let (mut seen, mut family) = (BTreeSet::new(), String::new());
        let (types, helped) = (self.types(), self.helped());
        let mut kind = "";
        let mut below = 0.0;
        for line in self.text.lines().filter(|line| !line.is_empty()) {
            if let Some(declared) = line.strip_prefix("# TYPE ") {
                let name = declared.split(' ').next().unwrap();
                assert!(seen.insert(declared.to_owned()), "twice: {line}");
                (family, kind) = (name.to_owned(), &types[name]);
                assert!(helped.contains(&family), "no help: {line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                continue;
            }
            if line.starts_with('#') {
                assert!(line.starts_with("# HELP "), "{line}");
                continue;
            }
            let of = sample(line);
            let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.iter().any(|suffix| of.name == format!("{family}{suffix}")), "after {family}: {line}");
            assert!(seen.insert(line.rsplit_once(' ').unwrap().0.to_owned()), "twice: {line}");
            assert!(of.value.is_finite(), "{line}");
            match of.labels.get("le").map(String::as_str) {
                Some(le) => {
                    assert!(of.value >= below, "{line}");
                    below = if le == "+Inf" { 0.0 } else { of.value };
                }
                None => assert_eq!(below, 0.0, "no last bucket before {line}"),
            }
        }
        self
    }

    /// Name → declared type, from the `# TYPE` lines.
    pub fn types(&self) -> BTreeMap<String, String> {
        let lines = self.text.lines().filter_map(|l| l.strip_prefix("# TYPE "));
        lines.filter_map(|l| l.split_once(' ')).map(|(n, t)| (n.to_owned(), t.to_owned())).collect()
    }

    /// Names with a help text.
    pub fn helped(&self) -> Vec<String> {
        let lines = self.text.lines().filter_map(|l| l.strip_prefix("# HELP "));
        lines.filter_map(|l| l.split_once(' ')).map(|(name, _)| name.to_owned()).collect()
    }
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let mut rest = labels.strip_suffix('}').unwrap_or_else(|| panic!("no labels: {line}"));
    let mut all = BTreeMap::new();
    while let Some((key, after)) = rest.split_once("=\"") {
        // Labels of ours hold neither quotes nor backslashes.
        let (value, after) = after.split_once('"').unwrap_or_else(|| panic!("no label: {line}"));
        all.insert(key.to_owned(), value.to_owned());
        rest = after.trim_start_matches(',');
    }
    Sample { name: name.to_owned(), labels: all, value: value.parse().unwrap_or_else(|_| panic!("no number: {line}")) }
}

#[test]
fn prometheus_text_is_read() {
    let text = "# HELP a_total all\n# TYPE a_total counter\na_total{x=\"1\",y=\"b c\"} 2\na_total{x=\"2\"} 3\nb 0.5\n";
    let metrics = Metrics::parse(text.to_owned());
    assert_eq!(metrics.sum("a_total", &[]), 5.0);
    assert_eq!(metrics.sum("a_total", &[("y", "b c")]), 2.0);
    assert_eq!(metrics.value("b", &[]), 0.5);
    assert_eq!(metrics.shapes(), ["a_total{x,y}", "a_total{x}", "b{}"]);
    assert_eq!(metrics.helped(), ["a_total"]);
}
