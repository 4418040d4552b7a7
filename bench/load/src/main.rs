//! Makes the load that wrk and h2load cannot, over TLS 1.3 or plain, and answers as the origin of websockets and uploads.
//!
//! ```text
//! load origin PORT                        answers on 127.0.0.1: /ws echoes, all else takes the body and says `ok`
//! load echo (plain|tls) PORT …            websockets that send a message and wait for its echo, again and again
//! load upload (plain|tls) PORT …          requests with long bodies, on kept connections
//! load handshakes (full|resumed) PORT …   a TLS connection for every request
//! load fixed (plain|tls) PORT …           requests at a fixed rate, whatever the answers do
//! load hold (plain|tls) (ws|http) PORT    idle connections that obey lines on standard input
//! ```
//!
//! Numbers follow as `--connections 64`, `--seconds 2`, `--size 100` (bytes) and `--rate 10000` (a second). The measuring
//! commands end with one line of JSON; what went wrong is in its `errors`.
mod client;
mod echo;
mod fixed;
mod handshakes;
mod hold;
mod http;
mod origin;
mod report;
mod tls;
mod upload;
mod websocket;

use std::process::ExitCode;
use std::time::Duration;

/// How much load, and for how long. Not every command reads every number.
#[derive(Clone, Copy)]
struct Amount {
    /// Connections at once, 1 to 60,000.
    connections: usize,
    /// How long new work is begun.
    lasting: Duration,
    /// Bytes of a message or of a body.
    size: usize,
    /// Requests a second, over all connections.
    rate: usize,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("load: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> Result<(), String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["origin", port] => block_on(origin::serve(number(port)?)).map_err(|e| e.to_string()),
        ["hold", security, kind, port] => {
            let target = client::Target { port: number(port)?, is_tls: is_tls(security)? };
            block_on(hold::run(target, kind == "ws")).map_err(|e| e.to_string())
        }
        [command, how, port, ref rest @ ..] => {
            let (port, amount) = (number(port)?, amount(rest)?);
            let outcome = match command {
                "echo" => block_on(echo::run(client::Target { port, is_tls: is_tls(how)? }, amount)),
                "upload" => block_on(upload::run(client::Target { port, is_tls: is_tls(how)? }, amount)),
                "handshakes" => block_on(handshakes::run(port, how == "resumed", amount)),
                "fixed" => fixed::run(client::Target { port, is_tls: is_tls(how)? }, amount),
                _ => return Err(format!("no command named `{command}`")),
            };
            println!("{outcome}");
            Ok(())
        }
        _ => Err("which command? Its source says what there is".to_owned()),
    }
}

/// One thread, as the machine has but one core for this.
fn block_on<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime is made because nothing else runs yet")
        .block_on(work)
}

fn is_tls(word: &str) -> Result<bool, String> {
    match word {
        "plain" => Ok(false),
        "tls" => Ok(true),
        _ => Err(format!("`plain` or `tls`, not `{word}`")),
    }
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("`{word}` is no number that is allowed here"))
}

fn amount(words: &[&str]) -> Result<Amount, String> {
    let mut amount = Amount { connections: 64, lasting: Duration::from_secs(2), size: 100, rate: 1000 };
    for pair in words.chunks(2) {
        match *pair {
            ["--connections", n] => amount.connections = number::<usize>(n)?.clamp(1, 60_000),
            ["--seconds", n] => amount.lasting = Duration::from_secs(number::<u64>(n)?.clamp(1, 3600)),
            ["--size", n] => amount.size = number::<usize>(n)?.clamp(1, 1 << 30),
            ["--rate", n] => amount.rate = number::<usize>(n)?.clamp(1, 1_000_000),
            _ => return Err(format!("what is `{}`?", pair.join(" "))),
        }
    }
    Ok(amount)
}
