//! The rules no compiler checks: who may know whom, where foreign crates live, how metrics are called, how files look.
//!
//! The lists here are those of `src/lib.rs`. A change of the architecture changes both.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests fail by panicking and print advice")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Parts of the program, top to bottom. Each may import from those below it, none from above.
const ORDER: &[&str] = &["cli", "proxy", "node", "shiny", "telemetry", "config", "runtime", "types"];

/// The two houses never know one another, in either direction.
const HOUSES: &[&str] = &["proxy", "node"];

/// The pure nouns inside `proxy`: what goes in is headers, addresses, instants; what comes out is a decision.
const PURE: &[&str] = &["route", "affinity", "pool", "headers"];

/// What a pure noun may not know: sockets, clocks, dice, files, processes.
const BANNED_IN_PURE: &[&str] = &[
    "tokio",
    "h2::",
    "async fn",
    ".await",
    "Instant::now",
    "SystemTime",
    "std::fs",
    "std::io::",
    "std::net::Tcp",
    "std::net::Udp",
    "std::os::unix::net",
    "std::process",
    "std::thread",
    "rand::",
    "ring::rand",
    "crate::runtime",
];

/// Foreign crates and the parts that may name them.
const HOMES: &[(&str, &[&str])] = &[
    ("pingora_core", &["proxy"]),
    ("h2", &["proxy"]),
    ("axum", &["node"]),
    ("hyper", &["node"]),
    ("hyper_util", &["node"]),
    ("multer", &["node"]),
    ("reqwest", &["cli", "node"]),
    ("html5gum", &["node"]),
    ("bzip2", &["node"]),
    ("lzma_rust2", &["node"]),
    ("object_store", &["node"]),
    ("sqlx", &["node"]),
    ("zip", &["cli", "node"]),
    ("toml", &["config"]),
    ("notify", &["runtime"]),
    ("tokio::signal", &["runtime"]),
    ("metrics_exporter_prometheus", &["telemetry"]),
    ("tracing_subscriber", &["telemetry"]),
    ("clap", &["cli"]),
    ("rpassword", &["cli"]),
    ("argon2", &["node"]),
    ("tokio_tungstenite", &["node"]),
    ("indicatif", &["cli"]),
    ("maud", &["node"]),
    ("pulldown_cmark", &["node"]),
];

/// Where metrics have their names.
const METRICS: &[&str] = &["src/proxy/metrics", "src/node/metrics"];

/// Lines a file may have, and lines from which on a cut should be thought of.
const LINES_MAX: usize = 900;
const LINES_ADVISED: usize = 600;

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a folder whose name ends so, sorted.
fn files(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![top().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                if !["target", "node_modules", "__pycache__", "runs"].contains(&name) && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if endings.iter().any(|e| name.ends_with(e)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A file under `src`, without comments, strings and what follows `#[cfg(test)] mod`.
struct Source {
    /// Relative to `src`.
    name: String,
    /// Line for line like the file, so that line numbers hold.
    code: String,
}

impl Source {
    fn is_test(&self) -> bool {
        self.name.ends_with("tests.rs") || self.name.contains("/tests/")
    }

    /// `proxy` for `proxy/route/mod.rs`; `None` for `main.rs` and `lib.rs`.
    fn part(&self) -> Option<&str> {
        self.name.split_once('/').map(|(part, _)| part)
    }

    /// The pure noun it belongs to.
    fn noun(&self) -> Option<&'static str> {
        let rest = self.name.strip_prefix("proxy/")?;
        let first = rest.split('/').next()?.trim_end_matches(".rs");
        PURE.iter().find(|n| **n == first).copied()
    }

    /// Lines with their numbers.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(i, line)| (i + 1, line))
    }

    /// Every path that begins with `crate::`, one entry per leaf of a braced list, with its line.
    fn crate_paths(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices("crate::") {
            let before = self.code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let line = 1 + self.code[..at].matches('\n').count();
            leaves("", &self.code[at + "crate::".len()..], &mut |path| found.push((line, path.to_owned())));
        }
        found
    }
}

/// The paths of a `use` tree or of an expression, as far as they go; returns what is left of the text.
fn leaves<'a>(prefix: &str, text: &'a str, tell: &mut dyn FnMut(&str)) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = leaves(prefix, rest, tell).trim_start();
            if let Some(next) = rest.strip_prefix(',') {
                rest = next.trim_start();
                if let Some(end) = rest.strip_prefix('}') {
                    return end;
                }
            } else {
                return rest.strip_prefix('}').unwrap_or(rest);
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*').unwrap_or(text.len());
    let path = if prefix.is_empty() { text[..end].to_owned() } else { format!("{prefix}::{}", &text[..end]) };
    let rest = &text[end..];
    match rest.strip_prefix("::") {
        Some(rest)
            if rest.trim_start().starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '{' || c == '*') =>
        {
            leaves(&path, rest, tell)
        }
        _ => {
            tell(&path);
            let renamed = rest.trim_start().strip_prefix("as ");
            renamed.map_or(rest, |r| r.trim_start().trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'))
        }
    }
}

fn sources() -> Vec<Source> {
    let found: Vec<_> = files("src", &[".rs"])
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(top().join("src")).unwrap().to_str().unwrap().to_owned();
            Source { name, code: without_tests(&bare(&fs::read_to_string(path).unwrap())) }
        })
        .collect();
    assert!(found.len() > 20, "this is not the source tree");
    found
}

/// The code alone: comments and the insides of literals become blanks, line ends stay.
fn bare(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let len = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |n| n + 2),
            'r' | 'b' if is_raw(rest) && !ends_in_word(&out) => raw_len(rest),
            '"' => string_len(rest),
            '\'' => char_len(rest),
            _ => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
                continue;
            }
        };
        out.extend(rest[..len].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &rest[len..];
    }
    out
}

fn ends_in_word(text: &str) -> bool {
    text.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_')
}

fn is_raw(text: &str) -> bool {
    let text = text.strip_prefix('b').unwrap_or(text);
    text.strip_prefix('r').is_some_and(|t| t.trim_start_matches('#').starts_with('"'))
}

fn raw_len(text: &str) -> usize {
    let start = text.find('"').unwrap();
    let hashes = text[..start].matches('#').count();
    let end = format!("\"{}", "#".repeat(hashes));
    text[start + 1..].find(&end).map_or(text.len(), |n| start + 1 + n + end.len())
}

fn string_len(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// A character literal; 1 for the quote of a lifetime.
fn char_len(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text[3..].find('\'').map_or(1, |n| n + 4),
        Some((_, _)) => chars.next().filter(|(_, c)| *c == '\'').map_or(1, |(at, _)| at + 1),
        None => 1,
    }
}

/// Test modules at the end of a file may know more than the file itself.
fn without_tests(code: &str) -> String {
    let cut = code.match_indices("#[cfg(test)]").map(|(at, _)| at).find(|at| {
        let after = code[at + "#[cfg(test)]".len()..].trim_start();
        let after = after.strip_prefix("pub(crate)").unwrap_or(after).trim_start();
        after.starts_with("mod ") && after.find('{').is_some_and(|b| after.find(';').is_none_or(|s| b < s))
    });
    code[..cut.unwrap_or(code.len())].to_owned()
}

/// Whether a line names this crate or path.
fn names(line: &str, what: &str) -> bool {
    line.match_indices(what).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + what.len()..].trim_start();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') && after.starts_with("::")
            || line.trim_start().starts_with(&format!("use {what}"))
    })
}

fn report(problems: &[String]) {
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn imports_go_downward() {
    let mut problems = Vec::new();
    for source in sources() {
        let Some(part) = source.part() else { continue };
        let Some(own) = ORDER.iter().position(|p| *p == part) else {
            problems.push(format!("src/{}: `{part}` has no place in the map of src/lib.rs", source.name));
            continue;
        };
        for (line, path) in source.crate_paths() {
            let target = path.split("::").next().unwrap_or_default();
            let place = ORDER.iter().position(|p| *p == target);
            let are_houses = HOUSES.contains(&part) && HOUSES.contains(&target) && part != target;
            if place.is_none_or(|place| place < own) || are_houses {
                problems.push(format!("src/{}:{line}: `{part}` must not know `{path}`", source.name));
            }
        }
    }
    report(&problems);
}

#[test]
fn the_order_is_the_one_of_the_map() {
    let map = fs::read_to_string(top().join("src/lib.rs")).unwrap();
    let drawn: Vec<_> =
        map.lines().filter_map(|l| l.split_once("└ ")).filter_map(|(_, l)| l.split_whitespace().next()).collect();
    assert_eq!(drawn, ORDER, "the picture in src/lib.rs");
    for noun in PURE {
        assert!(map.contains(&format!("[`proxy::{noun}`]")), "{noun} is not in src/lib.rs");
    }
}

#[test]
fn pure_nouns_are_pure_and_do_not_know_one_another() {
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for source in sources() {
        let Some(noun) = source.noun() else { continue };
        seen.insert(noun);
        if source.is_test() {
            continue;
        }
        for (line, text) in source.lines() {
            for banned in BANNED_IN_PURE {
                if text.contains(banned) {
                    problems.push(format!("src/{}:{line}: `{noun}` is pure and must not use `{banned}`", source.name));
                }
            }
            // Neighbours, however they are reached.
            for other in PURE.iter().filter(|o| **o != noun) {
                if text.contains(&format!("super::{other}::")) {
                    problems.push(format!("src/{}:{line}: `{noun}` must not know `{other}`", source.name));
                }
            }
        }
        for (line, path) in source.crate_paths() {
            let is_own = path == format!("proxy::{noun}") || path.starts_with(&format!("proxy::{noun}::"));
            let is_given = path.starts_with("types") || path.starts_with("config::proxy");
            if !is_own && !is_given {
                problems.push(format!("src/{}:{line}: `{noun}` must not know `{path}`", source.name));
            }
        }
    }
    assert_eq!(seen.len(), PURE.len(), "only {seen:?} are there");
    report(&problems);
}

#[test]
fn foreign_crates_stay_at_home() {
    let mut problems = Vec::new();
    for source in sources().iter().filter(|s| !s.is_test()) {
        let part = source.part().unwrap_or("main");
        for (line, text) in source.lines() {
            for (foreign, homes) in HOMES {
                if !homes.contains(&part) && names(text, foreign) {
                    problems.push(format!("src/{}:{line}: `{foreign}` belongs to {homes:?}", source.name));
                }
            }
            if part != "cli" && ["println!", "eprintln!", "print!(", "eprint!("].iter().any(|p| text.contains(p)) {
                problems.push(format!("src/{}:{line}: only `cli` prints", source.name));
            }
            if source.name != "runtime/clock.rs"
                && ["Instant::now()", "SystemTime::now()"].iter().any(|p| text.contains(p))
                && !text.contains("tokio::time::Instant")
                && !uses_tokio_instant(source)
            {
                problems.push(format!("src/{}:{line}: only `runtime::clock` asks what time it is", source.name));
            }
        }
    }
    report(&problems);
}

/// Deadlines of tokio's own timers are tokio's business.
fn uses_tokio_instant(source: &Source) -> bool {
    source.crate_independent_uses().any(|u| u.contains("tokio::time") && u.contains("Instant"))
}

impl Source {
    /// `use` statements, each as one text.
    fn crate_independent_uses(&self) -> impl Iterator<Item = &str> {
        self.code.split(';').filter_map(|s| s.rfind("use ").map(|at| &s[at..]))
    }
}

#[test]
fn metric_names_say_unit_and_kind_and_live_in_one_place() {
    let mut problems = Vec::new();
    let mut seen = 0;
    for path in files("src", &[".rs"]) {
        let name = path.strip_prefix(top()).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        for (i, line) in text.lines().enumerate() {
            for metric in line.split('"').skip(1).step_by(2).filter(|s| is_metric(s)) {
                let is_home = METRICS.iter().any(|home| name.starts_with(home)) || name.ends_with("tests.rs");
                if !is_home {
                    problems.push(format!("{name}:{}: `{metric}` belongs into one of {METRICS:?}", i + 1));
                }
                if !METRICS.iter().any(|home| name.starts_with(&format!("{home}/names"))) {
                    continue;
                }
                seen += 1;
                let kind = ["Counter", "Gauge", "Histogram"].into_iter().find(|k| line.contains(k));
                let is_total = metric.ends_with("_total");
                if kind.is_some_and(|k| (k == "Counter") != is_total) {
                    problems.push(format!("{name}:{}: counters, and only they, end in `_total`: `{metric}`", i + 1));
                }
                if kind == Some("Histogram") && !["_seconds", "_bytes", "_ratio"].iter().any(|u| metric.ends_with(u)) {
                    problems.push(format!("{name}:{}: a histogram ends in its base unit: `{metric}`", i + 1));
                }
                if ["_ms", "_millis", "_kib", "_mib", "_percent", "_count"]
                    .iter()
                    .any(|u| metric.trim_end_matches("_total").ends_with(u))
                {
                    problems.push(format!("{name}:{}: base units are seconds, bytes, ratios: `{metric}`", i + 1));
                }
            }
        }
    }
    assert!(seen >= 15, "only {seen} metrics were found");
    report(&problems);
}

fn is_metric(text: &str) -> bool {
    ["bowline_proxy_", "bowline_node_", "bowline_config_", "bowline_tls_", "bowline_build_", "bowline_log_"]
        .iter()
        .any(|p| text.starts_with(p))
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[test]
fn files_are_short_and_end_well() {
    let mut problems = Vec::new();
    let endings = [".rs", ".toml", ".md", ".mjs", ".js", ".py", ".R", ".sh"];
    let mut all = files("src", &endings);
    for folder in ["tests", "conf", "bench", "certs"] {
        all.extend(files(folder, &endings));
    }
    for name in ["Cargo.toml", "Makefile", "README.md", "CHANGELOG.md"] {
        all.extend(Some(top().join(name)).filter(|p| p.is_file()));
    }
    for path in all {
        let name = path.strip_prefix(top()).unwrap().display().to_string();
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        for (i, line) in text.lines().enumerate() {
            if line.ends_with([' ', '\t', '\r']) {
                problems.push(format!("{name}:{}: trailing whitespace", i + 1));
            }
        }
        if !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n")) {
            problems.push(format!("{name}: ends in one line feed"));
        }
        if name.ends_with(".rs") {
            let lines = text.lines().count();
            if lines > LINES_MAX {
                problems.push(format!("{name}: {lines} lines are too many for one idea"));
            } else if lines > LINES_ADVISED {
                eprintln!("advice: {name} has {lines} lines; is it still one idea?");
            }
        }
    }
    report(&problems);
}

#[test]
fn code_begins_by_saying_what_it_is() {
    let mut problems = Vec::new();
    for path in files("src", &[".rs"]) {
        let name = path.strip_prefix(top()).unwrap().display().to_string();
        let text = fs::read_to_string(&path).unwrap();
        if !text.starts_with("//! ") && !name.ends_with("tests.rs") && !name.contains("/tests/") {
            problems.push(format!("{name}: no `//!` in its first line"));
        }
        for (i, line) in text.lines().enumerate() {
            if line.contains("todo!(")
                || line.contains("unimplemented!(")
                || line.contains("TODO")
                || line.contains("FIXME")
            {
                problems.push(format!("{name}:{}: is this finished?", i + 1));
            }
        }
    }
    report(&problems);
}

#[test]
fn the_readers_of_this_file_read_code_as_meant() {
    let code = bare(
        "use crate::a::{b, c::{self, D}, e as f}; // crate::no\nlet x = \"crate::no\"; y(r#\"crate::\"no\"#, '\\'', 'c'); fn g<'a>() { crate::h::i() }",
    );
    let source = Source { name: "proxy/x.rs".to_owned(), code };
    let paths: Vec<_> = source.crate_paths().into_iter().map(|(_, p)| p).collect();
    assert_eq!(paths, ["a::b", "a::c::self", "a::c::D", "a::e", "h::i"]);
    assert_eq!(
        without_tests("a\n#[cfg(test)]\nmod tests;\nb\n#[cfg(test)]\nmod tests {\nc"),
        "a\n#[cfg(test)]\nmod tests;\nb\n"
    );
    assert!(
        names("use toml::Spanned;", "toml")
            && names("x(toml::from_str)", "toml")
            && !names("mytoml::x", "toml")
            && !names("a::toml::x", "toml")
    );
}
