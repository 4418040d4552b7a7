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
use crate::lane::Lane;
use crate::minimise::minimise;
use crate::proxy::Proxy;
use crate::site::{Site, Verdict};
use crate::tls::Tls;

/// How often a case must show something of the same kind to be a finding.
const TIMES: usize = 3;
/// Findings of one kind that are made small and written; more are only counted.
const OF_A_KIND: usize = 2;
/// Troubles of the fuzzer itself that are told.
const PROBLEMS_MAX: usize = 20;
/// KiB a proxy may have grown to: far above what the buffers of all sites can hold.
const MEMORY_MAX: u64 = 600 << 10;

#[derive(Default)]
struct Tally {
    /// By kind: how many, and of how many the case was written.
    findings: BTreeMap<String, (usize, usize)>,
    /// What did not show again: how many, and a seed.
    flickers: BTreeMap<String, (usize, u64)>,
    tolerated: BTreeMap<(&'static str, &'static str), usize>,
    /// Cases that were taken through each lane.
    played: BTreeMap<&'static str, usize>,
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

/// What all sites share.
struct Shared {
    proxy: Proxy,
    lanes: Vec<Lane>,
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
    let folder = std::env::temp_dir().join(format!("bowline-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let done = in_folder(options, &folder).await;
    let _ = std::fs::remove_dir_all(&folder);
    done
}

async fn in_folder(options: &Options, folder: &Path) -> Result<usize, String> {
    let tls = Tls::new(folder)?;
    let mut sites = Vec::new();
    for number in 0..options.sites {
        sites.push(Site::start(number, folder, &tls).await.map_err(|e| format!("no origin: {e}"))?);
    }
    let origins: Vec<_> = sites.iter().flat_map(Site::origins).collect();
    let proxy = Proxy::start(&options.bowline, folder, &origins).await?;
    if !options.only.is_empty() {
        return told(&sites[0], &proxy, options).await;
    }
    let known = options.cases.as_deref().map_or(Ok(Vec::new()), cases_in)?;
    let mut shared = Shared {
        proxy,
        lanes: options.lanes.clone(),
        tally: Mutex::default(),
        next: AtomicU64::new(0),
        done: AtomicU64::new(0),
        until: Instant::now() + options.lasting,
        seed: options.seed,
        out: options.out.clone(),
    };
    for (file, case) in &known {
        if let Shown::Difference(found) = confirmed(&sites[0], &shared, case).await? {
            println!("{}: {}\n{}", file.display(), found.kind, found.text);
            lock(&shared.tally).findings.entry(found.kind).or_default().0 += 1;
        }
    }
    let lanes: Vec<_> = shared.lanes.iter().map(|lane| lane.name()).collect();
    println!(
        "{} known cases, then seeds {}.0 on, at {} sites, in lanes {}",
        known.len(),
        options.seed,
        sites.len(),
        lanes.join(",")
    );
    shared.until = Instant::now() + options.lasting;
    let begun = Instant::now();
    let memory = shared.proxy.memory();
    let all = Arc::new(shared);
    let tasks: Vec<_> = sites.into_iter().map(|site| tokio::spawn(work(site, Arc::clone(&all)))).collect();
    let watcher = tokio::spawn(watch(Arc::clone(&all), begun));
    for task in tasks {
        task.await.map_err(|e| e.to_string())?;
    }
    watcher.abort();
    let _ = watcher.await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    shared = Arc::into_inner(all).ok_or("a site is still at work")?;
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

/// Runs files one by one and shows what came of them.
async fn told(site: &Site, proxy: &Proxy, options: &Options) -> Result<usize, String> {
    let mut findings = 0;
    for file in &options.only {
        let case = read(file)?;
        println!("{}\n{}", file.display(), site.told(proxy, &case).await?.trim_end());
        let Verdict { played, tolerated, found } = site.judge(proxy, &options.lanes, &case).await?;
        println!("played in {}", played.iter().map(|lane| lane.name()).collect::<Vec<_>>().join(","));
        for (lane, why) in tolerated {
            println!("{} differs, and may: {why}", lane.name());
        }
        if let Some(found) = found {
            findings += 1;
            println!("finding: {}\n{}", found.kind, found.text);
        }
        for line in proxy.said() {
            println!("  stderr: {line}");
        }
    }
    Ok(findings)
}

/// What a case shows each time it runs.
enum Shown {
    Nothing,
    /// It showed something of this kind once, but not again.
    Flicker(String),
    Difference(Difference),
}

async fn confirmed(site: &Site, shared: &Shared, case: &Case) -> Result<Shown, String> {
    let Verdict { played, tolerated, found } = site.judge(&shared.proxy, &shared.lanes, case).await?;
    {
        let mut tally = lock(&shared.tally);
        for lane in played {
            *tally.played.entry(lane.name()).or_default() += 1;
        }
        for (lane, why) in tolerated {
            *tally.tolerated.entry((why, lane.name())).or_default() += 1;
        }
    }
    let Some(first) = found else { return Ok(Shown::Nothing) };
    for _ in 1..TIMES {
        let again = site.judge(&shared.proxy, &shared.lanes, case).await?.found;
        if again.is_none_or(|again| again.kind != first.kind) {
            return Ok(Shown::Flicker(first.kind));
        }
    }
    Ok(Shown::Difference(first))
}

async fn work(site: Site, shared: Arc<Shared>) {
    while Instant::now() < shared.until {
        let seed = shared.seed.wrapping_mul(1 << 32).wrapping_add(shared.next.fetch_add(1, Relaxed));
        let case = generate::case(seed);
        match confirmed(&site, &shared, &case).await {
            Ok(Shown::Nothing) => {}
            Ok(Shown::Flicker(kind)) => lock(&shared.tally).flickers.entry(kind).or_insert((0, seed)).0 += 1,
            Ok(Shown::Difference(found)) => {
                let number = lock(&shared.tally).count(&found.kind);
                if let Some(number) = number {
                    write_down(&site, &shared, seed, number, case, found).await;
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

async fn write_down(site: &Site, shared: &Shared, seed: u64, number: usize, case: Case, found: Difference) {
    let kind = found.kind.clone();
    let (small, shown) = minimise(site, &shared.proxy, case, found).await;
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
        let memory = shared.proxy.memory() >> 10;
        println!("{seconds:.0} s: {done} cases, {:.0} a second; the proxy has {memory} MiB", done as f64 / seconds);
    }
}

fn sum_up(shared: &mut Shared, begun: Instant, memory: u64) -> usize {
    let (done, seconds) = (shared.done.load(Relaxed), begun.elapsed().as_secs_f64());
    let mut tally = lock(&shared.tally);
    if !shared.proxy.lives() {
        tally.findings.insert("the proxy is dead".into(), (1, 0));
    }
    let (said, memory_now) = (shared.proxy.said(), shared.proxy.memory());
    if memory_now > MEMORY_MAX {
        tally.findings.insert(format!("the proxy has grown to {memory_now} KiB"), (1, 0));
    }
    if let Some(line) = said.first() {
        tally.findings.insert(format!("the proxy said {} lines, first: {line}", said.len()), (said.len(), 0));
    }
    println!("{done} cases in {seconds:.0} s, {:.0} a second", done as f64 / seconds);
    let played: Vec<_> = tally.played.iter().map(|(lane, count)| format!("{lane} {count}")).collect();
    println!("lanes: {}", played.join(", "));
    println!("memory of the proxy, KiB: {memory} then {memory_now}");
    println!("what did not show again: {}", tally.flickers.values().map(|(n, _)| n).sum::<usize>());
    for (kind, (count, seed)) in &tally.flickers {
        println!("  {count:>6} {kind} (seed {seed})");
    }
    println!("differences that may be: {}", tally.tolerated.values().sum::<usize>());
    for ((why, lane), count) in &tally.tolerated {
        println!("  {count:>6} {lane}: {why}");
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
