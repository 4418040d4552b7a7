//! Requests at a fixed rate, whatever the answers do: an open loop.
//!
//! Each connection has a thread, and its own arrivals at random, with exponential gaps, the same in every run; together
//! they are a Poisson process. Latency counts from when a request was to be sent, so that one that had to wait for the
//! connection's earlier answer is as late as its client would have found it.
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use tokio_rustls::rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::client::{PATIENCE, Target};
use crate::http::broken;
use crate::report::Outcome;
use crate::{Amount, tls};

const REQUEST: &[u8] = b"GET /1k HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// How late a request may be sent; after that the rate is too high for whoever answers.
const BEHIND_MAX: Duration = Duration::from_secs(5);

/// Longest line of a head.
const LINE_BYTES_MAX: u64 = 16 << 10;

trait Duplex: Read + Write {}
impl<T: Read + Write> Duplex for T {}

/// Ends with percentiles of the latency, in milliseconds. Lasts longer than it was told where answers fall behind.
pub(crate) fn run(target: Target, amount: Amount) -> Outcome {
    // Threads inherit it: sleeps of theirs end within a microsecond or so, where 50 are usual. Without, all are later alike.
    drop(std::fs::write("/proc/self/timerslack_ns", "1"));
    let config = Arc::new(tls::config(false));
    let barrier = Arc::new(Barrier::new(amount.connections));
    let threads: Vec<_> = (0..amount.connections)
        .map(|number| {
            let (config, barrier) = (Arc::clone(&config), Arc::clone(&barrier));
            thread::spawn(move || client(target, &config, &barrier, number, amount))
        })
        .collect();
    let (mut outcome, mut latencies) = (Outcome::default(), Vec::new());
    for thread in threads {
        match thread.join() {
            Ok((one, its)) => {
                outcome.lasted = outcome.lasted.max(one.lasted);
                outcome.add(one);
                latencies.extend(its);
            }
            Err(_) => outcome.failed(&"a thread panicked"),
        }
    }
    latencies.sort_unstable();
    for (name, share) in [("p50_ms", 0.5), ("p99_ms", 0.99), ("p999_ms", 0.999), ("max_ms", 1.0)] {
        let index = ((latencies.len() as f64 * share) as usize).min(latencies.len().saturating_sub(1));
        let latency = latencies.get(index).copied().unwrap_or_default();
        outcome.figures.insert(name, latency.as_secs_f64() * 1e3);
    }
    outcome
}

fn client(
    target: Target,
    config: &Arc<ClientConfig>,
    barrier: &Barrier,
    number: usize,
    amount: Amount,
) -> (Outcome, Vec<Duration>) {
    let (mut outcome, mut latencies) = (Outcome::default(), Vec::new());
    let opened = connect(target, config).and_then(|mut stream| exchange(&mut stream).map(|()| stream));
    barrier.wait();
    let start = Instant::now();
    let mut stream = match opened {
        Ok(stream) => stream,
        Err(problem) => {
            outcome.failed(&problem);
            return (outcome, latencies);
        }
    };
    let gap = amount.connections as f64 / amount.rate as f64;
    let mut dice = Dice(number as u64 + 1);
    let mut due = dice.gap(gap);
    while due < amount.lasting {
        let now = start.elapsed();
        if now < due {
            thread::sleep(due - now);
        } else if now > due + BEHIND_MAX {
            outcome.failed(&"requests that could not be sent in time");
            break;
        }
        if let Err(problem) = exchange(&mut stream) {
            outcome.failed(&problem);
            break;
        }
        latencies.push(start.elapsed().saturating_sub(due));
        outcome.n += 1;
        due += dice.gap(gap);
    }
    outcome.lasted = start.elapsed().max(amount.lasting);
    (outcome, latencies)
}

fn connect(target: Target, config: &Arc<ClientConfig>) -> io::Result<BufReader<Box<dyn Duplex>>> {
    let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, target.port))?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    tcp.set_write_timeout(Some(PATIENCE))?;
    if !target.is_tls {
        return Ok(BufReader::new(Box::new(tcp)));
    }
    let session = ClientConnection::new(Arc::clone(config), tls::name()).map_err(io::Error::other)?;
    Ok(BufReader::new(Box::new(StreamOwned::new(session, tcp))))
}

/// One request and its answer.
fn exchange(stream: &mut BufReader<Box<dyn Duplex>>) -> io::Result<()> {
    stream.get_mut().write_all(REQUEST)?;
    stream.get_mut().flush()?;
    let (mut line, mut length, mut is_first) = (String::new(), None, true);
    loop {
        line.clear();
        stream.take(LINE_BYTES_MAX).read_line(&mut line)?;
        if is_first && !line.starts_with("HTTP/1.1 200") {
            return Err(broken(&line));
        }
        is_first = false;
        if line.trim_end().is_empty() {
            break;
        }
        let field = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        length = length.or(field.and_then(|(_, value)| value.trim().parse().ok()));
    }
    let length: u64 = length.ok_or_else(|| broken("no content-length"))?;
    let body = io::copy(&mut stream.take(length), &mut io::sink())?;
    if body == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// A xorshift generator: arrivals at random that are the same in every run.
struct Dice(u64);

impl Dice {
    /// Exponentially distributed, of this mean in seconds.
    fn gap(&mut self, mean: f64) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let scrambled = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        // Above 0, at most 1.
        let share = ((scrambled >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
        Duration::from_secs_f64((-share.ln() * mean).min(60.0))
    }
}
