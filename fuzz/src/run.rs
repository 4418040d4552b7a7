//! A whole run: starts everything, takes case after case, tells what was found.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::Options;
use crate::case::Case;
use crate::compare::Difference;
use crate::generate;
use crate::lane::{Lane, Pair, Verdict};
use crate::minimise::minimise;
use crate::proxy::Proxy;

/// How often a case must show a difference of the same kind to be a finding.
const TIMES: usize = 3;
/// Findings of one kind that are made small and written; more are only counted.
const OF_A_KIND: usize = 2;
/// Troubles of the fuzzer itself that are told.
const PROBLEMS_MAX: usize = 20;
/// KiB a proxy may have grown to: far above what the buffers of all lanes can hold.
const MEMORY_MAX: u64 = 600 << 10;

#[derive(Default)]
struct Tally {
    /// By kind: how many, and of how many the case was written.
    findings: BTreeMap<String, (usize, usize)>,
    /// Differences that did not show again: how many, and a seed.
    flickers: BTreeMap<String, (usize, u64)>,
    tolerated: BTreeMap<&'static str, usize>,
    problems: Vec<String>,
}

impl Tally {
    /// Counts a finding; its number among those of its kind if it is to be written down.
    fn count(&mut self, kind: &str) -> Option<usize> {
        let (count, written) = self.findings.entry(kind.to_owned()).or_default();
        *count += 1;
        (*written < OF_A_KIND).then(|| {
            *written += 1;
            *written
        })
    }

    fn note(&mut self, problem: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        }
    }
}

/// What all lanes share.
struct Shared {
    pair: Pair,
    tally: Mutex<Tally>,
    next: AtomicU64,
    done: AtomicU64,
    until: Instant,
    seed: u64,
    out: PathBuf,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs; how many findings there are.
///
/// # Errors
/// What could not be started or read.
pub(crate) async fn run(options: &Options) -> Result<usize, String> {
    let mut lanes = Vec::new();
    for number in 0..options.lanes {
        lanes.push(Lane::start(number).await.map_err(|e| format!("no origin: {e}"))?);
    }
    let folder = std::env::temp_dir().join(format!("bowline-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let done = in_folder(options, lanes, &folder).await;
    let _ = std::fs::remove_dir_all(&folder);
    done
}

async fn in_folder(options: &Options, lanes: Vec<Lane>, folder: &Path) -> Result<usize, String> {
    let of = |pick: fn(&Lane) -> std::net::SocketAddr| {
        lanes.iter().map(|l| (l.name().to_owned(), pick(l))).collect::<Vec<_>>()
    };
    let lean = Proxy::start(&options.bowline, folder, "lean", false, &of(|l| l.origins().0)).await?;
    let pingora = Proxy::start(&options.bowline, folder, "pingora", true, &of(|l| l.origins().1)).await?;
    let pair = Pair { lean, pingora };
    if !options.only.is_empty() {
        return told(&lanes[0], &pair, &options.only).await;
    }
    let known = options.cases.as_deref().map_or(Ok(Vec::new()), cases_in)?;
    let mut shared = Shared {
        pair,
        tally: Mutex::default(),
        next: AtomicU64::new(0),
        done: AtomicU64::new(0),
        until: Instant::now() + options.lasting,
        seed: options.seed,
        out: options.out.clone(),
    };
    for (file, case) in &known {
        if let Shown::Difference(found) = confirmed(&lanes[0], &shared.pair, case).await? {
            println!("{}: {}\n{}", file.display(), found.kind, found.text);
            lock(&shared.tally).findings.entry(found.kind).or_default().0 += 1;
        }
    }
    println!("{} known cases, then seeds {}.{} on, in {} lanes", known.len(), options.seed, 0, lanes.len());
    let begun = Instant::now();
    let memory = (shared.pair.lean.memory(), shared.pair.pingora.memory());
    let all = Arc::new(shared);
    let tasks: Vec<_> = lanes.into_iter().map(|lane| tokio::spawn(work(lane, Arc::clone(&all)))).collect();
    let watcher = tokio::spawn(watch(Arc::clone(&all), begun));
    for task in tasks {
        task.await.map_err(|e| e.to_string())?;
    }
    watcher.abort();
    let _ = watcher.await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    shared = Arc::into_inner(all).ok_or("a lane is still at work")?;
    let findings = sum_up(&mut shared, begun, memory);
    Ok(findings)
}

fn cases_in(folder: &Path) -> Result<Vec<(PathBuf, Case)>, String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "case"));
    files.sort();
    files.into_iter().map(|file| Ok((file.clone(), read(&file)?))).collect()
}

fn read(file: &Path) -> Result<Case, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    Case::from_text(&text).map_err(|e| format!("{}: {e}", file.display()))
}

/// Runs files one by one and shows what differs.
async fn told(lane: &Lane, pair: &Pair, files: &[PathBuf]) -> Result<usize, String> {
    let mut findings = 0;
    for file in files {
        match lane.compare(pair, &read(file)?).await? {
            Verdict::Alike => println!("{}: alike", file.display()),
            Verdict::Tolerated(why) => println!("{}: differs, and may: {why}", file.display()),
            Verdict::Differs(found) => {
                findings += 1;
                println!("{}: {}\n{}", file.display(), found.kind, found.text);
            }
        }
        for line in pair.lean.said().iter().chain(&pair.pingora.said()) {
            println!("  stderr: {line}");
        }
    }
    Ok(findings)
}

/// What a case shows each time it runs.
enum Shown {
    Nothing,
    Tolerated(&'static str),
    /// It showed a difference of this kind once, but not again.
    Flicker(String),
    Difference(Difference),
}

async fn confirmed(lane: &Lane, pair: &Pair, case: &Case) -> Result<Shown, String> {
    let first = match lane.compare(pair, case).await? {
        Verdict::Alike => return Ok(Shown::Nothing),
        Verdict::Tolerated(why) => return Ok(Shown::Tolerated(why)),
        Verdict::Differs(first) => first,
    };
    for _ in 1..TIMES {
        let again = lane.compare(pair, case).await?.difference();
        if again.is_none_or(|again| again.kind != first.kind) {
            return Ok(Shown::Flicker(first.kind));
        }
    }
    Ok(Shown::Difference(first))
}

async fn work(lane: Lane, shared: Arc<Shared>) {
    while Instant::now() < shared.until {
        let seed = shared.seed.wrapping_mul(1 << 32).wrapping_add(shared.next.fetch_add(1, Relaxed));
        let case = generate::case(seed);
        match confirmed(&lane, &shared.pair, &case).await {
            Ok(Shown::Nothing) => {}
            Ok(Shown::Tolerated(why)) => *lock(&shared.tally).tolerated.entry(why).or_default() += 1,
            Ok(Shown::Flicker(kind)) => {
                let mut tally = lock(&shared.tally);
                let flicker = tally.flickers.entry(kind).or_insert((0, seed));
                flicker.0 += 1;
            }
            Ok(Shown::Difference(found)) => {
                let number = lock(&shared.tally).count(&found.kind);
                if let Some(number) = number {
                    write_down(&lane, &shared, seed, number, case, found).await;
                }
            }
            Err(problem) => {
                lock(&shared.tally).note(problem);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        shared.done.fetch_add(1, Relaxed);
    }
}

async fn write_down(lane: &Lane, shared: &Shared, seed: u64, number: usize, case: Case, found: Difference) {
    let kind = found.kind.clone();
    let (small, shown) = minimise(lane, &shared.pair, case, found).await;
    let name: String = kind.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(90).collect();
    let file = shared.out.join(format!("{name}-{number}.case"));
    let comment: String = shown.text.lines().map(|line| format!("#   {line}\n")).collect();
    let text = format!("# {kind}\n# seed {seed}\n{comment}{}", small.to_text());
    let written = std::fs::create_dir_all(&shared.out).and_then(|()| std::fs::write(&file, &text));
    println!("finding: {kind} (seed {seed}) {}", file.display());
    if let Err(error) = written {
        println!("{}: {error}\n{text}", file.display());
    }
}

/// Tells now and then how it goes.
async fn watch(shared: Arc<Shared>, begun: Instant) {
    loop {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let (done, seconds) = (shared.done.load(Relaxed), begun.elapsed().as_secs_f64());
        let (lean, pingora) = (shared.pair.lean.memory() >> 10, shared.pair.pingora.memory() >> 10);
        println!(
            "{seconds:.0} s: {done} cases, {:.0} a second; lean {lean} MiB, pingora {pingora} MiB",
            done as f64 / seconds
        );
    }
}

fn sum_up(shared: &mut Shared, begun: Instant, memory: (u64, u64)) -> usize {
    let (done, seconds) = (shared.done.load(Relaxed), begun.elapsed().as_secs_f64());
    let mut tally = lock(&shared.tally);
    for proxy in [&mut shared.pair.lean, &mut shared.pair.pingora] {
        if !proxy.lives() {
            tally.findings.insert(format!("{} is dead", proxy.name), (1, 0));
        }
        let (said, memory) = (proxy.said(), proxy.memory());
        if memory > MEMORY_MAX {
            tally.findings.insert(format!("{} has grown to {memory} KiB", proxy.name), (1, 0));
        }
        if let Some(line) = said.first() {
            tally.findings.insert(format!("{} said {} lines, first: {line}", proxy.name, said.len()), (said.len(), 0));
        }
    }
    println!("{done} cases in {seconds:.0} s, {:.0} a second", done as f64 / seconds);
    println!(
        "memory, KiB: lean {} then {}, pingora {} then {}",
        memory.0,
        shared.pair.lean.memory(),
        memory.1,
        shared.pair.pingora.memory()
    );
    println!("differences that did not show again: {}", tally.flickers.values().map(|(n, _)| n).sum::<usize>());
    for (kind, (count, seed)) in &tally.flickers {
        println!("  {count:>6} {kind} (seed {seed})");
    }
    println!("differences that may be: {}", tally.tolerated.values().sum::<usize>());
    for (why, count) in &tally.tolerated {
        println!("  {count:>6} {why}");
    }
    for problem in &tally.problems {
        println!("problem: {problem}");
    }
    println!("findings: {}", tally.findings.len());
    for (kind, (count, _)) in &tally.findings {
        println!("  {count:>6} {kind}");
    }
    tally.findings.len()
}
