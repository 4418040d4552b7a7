//! Takes the same exchanges through Bowline in several ways, for valid bytes and hostile, and demands that all are one.
//!
//! ```text
//! fuzz --bowline PATH [--minutes 5] [--seed N] [--lanes whole,cut,tls,…] [--sites 96] [--cases FOLDER] [--out FOLDER]
//! fuzz --bowline PATH --case FILE …       runs these alone and tells what came of them
//! fuzz --print SEED                       prints the case of a seed, as a file has it
//! ```
//! Ends with 1 if there was a finding. See README.md.
mod account;
mod case;
mod client;
mod client_h2;
mod compare;
mod dice;
mod faults;
mod fidelity;
mod generate;
mod lane;
mod message;
mod minimise;
mod origin;
mod proxy;
mod run;
mod shape;
mod site;
mod switch;
mod tls;
mod tolerance;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::lane::Lane;

/// What the command line says.
pub(crate) struct Options {
    bowline: PathBuf,
    lasting: Duration,
    seed: u64,
    /// The first is the one the others are held against.
    lanes: Vec<Lane>,
    /// Cases that run side by side.
    sites: usize,
    /// Cases to run before those that are made up.
    cases: Option<PathBuf>,
    /// Where findings are written.
    out: PathBuf,
    /// Only these.
    only: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, seed] = &words[..]
        && word == "--print"
        && let Ok(seed) = seed.parse()
    {
        print!("{}", generate::case(seed).to_text());
        return ExitCode::SUCCESS;
    }
    let done = options(&words).and_then(|options| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.map_err(|e| e.to_string())?.block_on(run::run(&options))
    });
    match done {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("fuzz: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn options(words: &[String]) -> Result<Options, String> {
    let mut options = Options {
        bowline: PathBuf::new(),
        lasting: Duration::from_secs(300),
        seed: 1,
        lanes: Lane::ALL.to_vec(),
        sites: 96,
        cases: None,
        out: "target/fuzz/findings".into(),
        only: Vec::new(),
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number = || value.parse::<f64>().map_err(|_| format!("{word} needs a number, not {value}"));
        match word.as_str() {
            "--bowline" => options.bowline = value.into(),
            "--minutes" => options.lasting = Duration::from_secs_f64(number()?.clamp(0.0, 100_000.0) * 60.0),
            "--seed" => options.seed = value.parse().map_err(|_| format!("{word} needs a number, not {value}"))?,
            "--lanes" => options.lanes = Lane::list(value)?,
            "--sites" => options.sites = number()?.clamp(1.0, 1_000.0) as usize,
            "--cases" => options.cases = Some(value.into()),
            "--out" => options.out = value.into(),
            "--case" => options.only.push(value.into()),
            _ => return Err(format!("what is {word}?")),
        }
    }
    if options.bowline.as_os_str().is_empty() { Err("--bowline PATH is missing".into()) } else { Ok(options) }
}
