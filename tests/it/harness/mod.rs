//! What every promise is tested with: the real binary, scripted upstreams, a client that sees bytes, a development CA.
//!
//! Nothing sleeps for luck: whoever waits, waits for an event or for a state, and never longer than a limit.

mod admin;
mod carbon;
mod client;
pub mod demo;
mod folder;
mod http2;
mod link;
mod message;
mod node;
mod origin;
mod pki;
mod postgres;
mod proxy;
mod s3;
mod site;
mod smtp;
mod strace;
mod tests;
pub mod tools;
pub mod websocket;

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

pub use self::admin::Metrics;
pub use self::carbon::Carbon;
pub use self::client::{Client, ClientTls, cookie_of, get, get_as};
pub use self::demo::Demo;
pub use self::folder::Folder;
pub use self::http2::H2;
pub use self::link::Link;
pub use self::message::{Fields, Request, Response};
pub use self::node::Node;
pub use self::origin::{Exchange, Origin};
pub use self::pki::Authority;
pub use self::postgres::Postgres;
pub use self::proxy::{Output, Proxy, bowline, bowline_by};
pub use self::s3::S3;
pub use self::site::Site;
pub use self::smtp::Smtp;
pub use self::strace::Strace;
pub use self::tools::{run, script, tool};
pub use self::websocket::{Frame, Socket};

/// Longest wait for one read, write or connection.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test with a limit on all of it. What the test holds is dropped while panicking when the limit is reached, so
/// that a proxy prints what it logged.
pub fn within<F: Future>(seconds: u64, test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut test = pin!(test);
        match tokio::time::timeout(Duration::from_secs(seconds), &mut test).await {
            Ok(output) => output,
            Err(_) => panic!("not done after {seconds} s"),
        }
    })
}

/// Waits for something others do, up to [`PATIENCE`].
pub async fn patiently<F: Future>(what: &str, future: F) -> F::Output {
    patiently_for(PATIENCE, what, future).await
}

/// As [`patiently`], up to this.
pub async fn patiently_for<F: Future>(time: Duration, what: &str, future: F) -> F::Output {
    match tokio::time::timeout(time, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {time:?} in vain for {what}"),
    }
}

/// Asks again and again until the answer is `Some`, up to [`PATIENCE`].
pub async fn eventually<T>(what: &str, ask: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_in(PATIENCE, what, ask).await
}

/// As [`eventually`], up to this.
pub async fn eventually_in<T>(time: Duration, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    patiently_for(time, what, async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}
