//! A Carbon: takes lines of Graphite's plaintext protocol and remembers the last value of each path.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use super::eventually;

/// Path → value and time.
type Kept = BTreeMap<String, (f64, u64)>;

/// Hangs up when dropped.
pub struct Carbon {
    pub address: String,
    kept: Arc<Mutex<Kept>>,
    task: JoinHandle<()>,
}

impl Carbon {
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1:0").await
    }

    /// At the address of one that was there before.
    pub async fn start_at(address: &str) -> Self {
        let listener = eventually("the address", async || TcpListener::bind(address).await.ok()).await;
        let address = listener.local_addr().unwrap().to_string();
        let kept = Arc::<Mutex<Kept>>::default();
        let task = tokio::spawn(accept(listener, Arc::clone(&kept)));
        Self { address, kept, task }
    }

    /// What came, if every line was as it must be.
    pub fn kept(&self) -> Kept {
        assert!(!self.task.is_finished(), "a line that Carbon would not take");
        self.kept.lock().unwrap().clone()
    }
}

async fn accept(listener: TcpListener, kept: Arc<Mutex<Kept>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, kept) = (accepted.unwrap().0, Arc::clone(&kept));
                connections.spawn(async move {
                    let mut lines = BufReader::new(stream).lines();
                    while let Ok(Some(line)) = lines.next_line().await {
                        let (path, value, at) = read(&line);
                        kept.lock().unwrap().insert(path, (value, at));
                    }
                });
            }
            Some(ended) = connections.join_next() => ended.unwrap(),
        }
    }
}

impl Drop for Carbon {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// As Carbon reads one: three words, a number and seconds; as Whisper makes files of it: plain names.
fn read(line: &str) -> (String, f64, u64) {
    let words: Vec<&str> = line.split(' ').collect();
    let [path, value, at] = words[..] else { panic!("no three words: {line}") };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    assert!(path.split('.').all(|part| !part.is_empty() && part.chars().all(is_plain)), "{line}");
    (path.to_owned(), value.parse().unwrap(), at.parse().unwrap())
}
