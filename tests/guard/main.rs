//! Instructions of the proxy's pure core, counted by callgrind and held against those recorded in `bench/guard.json`.
//!
//! The test runs this program again under valgrind. There each work has two threads: one does it so many times, the other
//! twice as many, so that what beginning and ending cost falls out of the difference. Counts hold for one compiler, kind of
//! machine and profile; `make bench-guard ARGS=--record` records them. Nothing here opens a socket or sleeps.
#![allow(clippy::print_stderr, reason = "counts are told also where they are fine")]

mod works;

use std::collections::BTreeMap;
use std::env;
use std::env::consts::ARCH;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Barrier, mpsc};
use std::thread;

use works::{Work, works};

const TEST: &str = "the_core_needs_no_more_instructions_than_are_recorded";
/// Set for the process that is counted.
const COUNTED: &str = "BOWLINE_GUARD_COUNTED";
/// Set to record instead of comparing.
const RECORD: &str = "BOWLINE_GUARD_RECORD";
/// How often the first thread of a work does it: enough for the thousand instructions or so to be little by which beginnings
/// and ends differ.
const TIMES: usize = if cfg!(debug_assertions) { 100 } else { 2000 };
/// By what share a count may differ from the record of the very compiler.
const TOLERANCE: f64 = 0.05;
/// From another's, with which only what is grossly wrong can be told.
const TOLERANCE_OF_ANOTHER: f64 = 0.5;

/// Instructions by work.
type Counts = BTreeMap<String, u64>;
/// Counts by part, compiler and profile, as in the file.
type Records = BTreeMap<String, BTreeMap<String, BTreeMap<String, Counts>>>;

#[test]
fn the_core_needs_no_more_instructions_than_are_recorded() {
    if env::var_os(COUNTED).is_some() {
        return do_all(&works());
    }
    let program = env::current_exe().expect("a program knows where it is");
    let (counts, compiler, profile) = (counted(&program), compiler(), profile(&program));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/guard.json");
    let text = fs::read_to_string(&path).expect("the records");
    let mut records: Records = serde_json::from_str(&text).expect("the records");
    let core = records.entry("core".to_owned()).or_default();
    if env::var_os(RECORD).is_some() {
        core.entry(compiler).or_default().insert(profile, counts);
        let text = serde_json::to_string_pretty(&records).expect("maps of numbers are JSON");
        return fs::write(path, text + "\n").expect("the records can be written");
    }
    let alike = core.iter().filter_map(|(compiler, by_profile)| Some((compiler, by_profile.get(&profile)?)));
    let nearest = alike.min_by_key(|(other, _)| distance(&compiler, other));
    let (of, recorded) = nearest.unwrap_or_else(|| panic!("nothing is recorded of profile `{profile}`: {REMEDY}"));
    let tolerance = if *of == compiler { TOLERANCE } else { TOLERANCE_OF_ANOTHER };
    eprintln!("{compiler}, {profile}; recorded of {of}");
    let problems = compared(&counts, recorded, tolerance);
    assert!(problems.is_empty(), "more than {:.0} % above what is recorded:\n{problems}{REMEDY}", tolerance * 100.0);
}

const REMEDY: &str = "if that is as it must be, `make bench-guard ARGS=--record` records it";

/// Counts all works in one run.
fn counted(program: &Path) -> Counts {
    let folder = tempfile::tempdir().expect("a folder");
    let outcome = Command::new("valgrind")
        .args(["--tool=callgrind", "--separate-threads=yes"])
        .arg(format!("--callgrind-out-file={}/thread", folder.path().display()))
        .arg(program)
        .args(["--exact", TEST, "--test-threads=1"])
        .env(COUNTED, "1")
        .output()
        .expect("this test needs `valgrind`: run `make test`, which installs what tests need");
    let told = [outcome.stdout, outcome.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(outcome.status.success(), "{}", told.concat());
    let mut totals = BTreeMap::new();
    for entry in fs::read_dir(&folder).expect("a folder") {
        let path = entry.expect("a file").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // Beside `thread-01` and so on there is an empty `thread`.
        if let Some(number) = name.strip_prefix("thread-") {
            let text = fs::read_to_string(&path).expect("what was counted");
            let total = text.lines().find_map(|line| line.strip_prefix("totals: ")).expect("a sum");
            totals.insert(number.parse::<u32>().expect("a number"), total.parse::<u64>().expect("a number"));
        }
    }
    // Ours are the last ones that began.
    let works = works();
    let totals: Vec<_> = totals.into_values().collect();
    let ours = &totals[totals.len().checked_sub(2 * works.len()).expect("two threads for each work")..];
    let pairs = works.into_iter().zip(ours.chunks_exact(2));
    let each = |once: u64, twice: u64| (twice.checked_sub(once).expect("twice as much is more")) / TIMES as u64;
    pairs.map(|((name, _), pair)| (name.to_owned(), each(pair[0], pair[1]))).collect()
}

/// Those of too many instructions, and those of which there is a count or a record only; a line each.
fn compared(counts: &Counts, recorded: &Counts, tolerance: f64) -> String {
    let mut problems = String::new();
    eprintln!("{:44} {:>10} {:>10} {:>6}", "work", "count", "recorded", "ratio");
    for (work, count) in counts {
        let Some(before) = recorded.get(work) else {
            writeln!(problems, "  {work}: {count}, and nothing is recorded").expect("a String only grows");
            continue;
        };
        let ratio = *count as f64 / *before as f64;
        let less = if ratio < 1.0 - tolerance { "less than recorded: record it" } else { "" };
        eprintln!("{work:44} {count:>10} {before:>10} {ratio:>6.3} {less}");
        if ratio > 1.0 + tolerance {
            writeln!(problems, "  {work}: {count}, {before} are recorded: {:+.1} %", (ratio - 1.0) * 100.0)
                .expect("a String only grows");
        }
    }
    for work in recorded.keys().filter(|work| !counts.contains_key(*work)) {
        writeln!(problems, "  {work}: is recorded, and is no work").expect("a String only grows");
    }
    problems
}

/// As records name it: what `rustc --version` says, and for which machines.
fn compiler() -> String {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let top = env!("CARGO_MANIFEST_DIR");
    let told = Command::new(rustc).arg("--version").current_dir(top).output().expect("the compiler is there");
    format!("{}, {ARCH}", String::from_utf8_lossy(&told.stdout).trim())
}

/// The folder cargo builds into is named after it.
fn profile(program: &Path) -> String {
    let folder = program.parent().and_then(Path::parent).and_then(Path::file_name);
    folder.expect("target/PROFILE/deps/guard").to_string_lossy().into_owned()
}

/// How far two compilers are apart; those for other machines are farther than any other.
fn distance(a: &str, b: &str) -> (bool, bool, u32) {
    let machine = |name: &str| name.rsplit_once(", ").map(|(_, machine)| machine.to_owned());
    let minor = |name: &str| name.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0_u32);
    (machine(a) != machine(b), a != b, minor(a).abs_diff(minor(b)))
}

/// All works, one after the other, each in a thread for so many times and in one for twice as many.
fn do_all(works: &[Work]) {
    // What is made only once in a process.
    works.iter().for_each(|(_, run)| run(1));
    // A number of a thread that ended would be given again.
    let end = Barrier::new(2 * works.len());
    thread::scope(|scope| {
        for (_, run) in works {
            for times in [TIMES, 2 * TIMES] {
                let (done, is_done) = mpsc::channel();
                let end = &end;
                scope.spawn(move || {
                    run(times);
                    drop(done);
                    end.wait();
                });
                // Until it is dropped.
                assert!(is_done.recv() == Err::<(), _>(mpsc::RecvError));
            }
        }
    });
}
