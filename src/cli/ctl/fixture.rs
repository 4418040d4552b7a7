//! A fake proxy behind a real admin socket and a real TCP port, for the tests of the commands.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::{Console, Endpoint, Failure, Target, exit_code};
use crate::proxy::admin::fake::{Fake, MOMENT};
use crate::proxy::admin::{AdminSocket, serve_tcp, serve_unix};

/// Serves as long as it lives.
pub(crate) struct Served {
    pub(crate) fake: Arc<Fake>,
    socket: Endpoint,
    tcp: Endpoint,
    _stop: watch::Sender<bool>,
    _runtime: Runtime,
    _dir: tempfile::TempDir,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: u8,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) failure: String,
}

impl Served {
    pub(crate) fn start(fake: Fake) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let fake = Arc::new(fake);
        let runtime = Runtime::new().unwrap();
        let (stop, stopped) = watch::channel(false);
        let tcp = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            tokio::spawn(serve_tcp(listener, fake.clone(), stopped.clone()));
            tokio::spawn(serve_unix(AdminSocket::bind(&path).unwrap(), fake.clone(), stopped));
            Endpoint::Http(address)
        });
        Self { fake, socket: Endpoint::Unix(path), tcp, _stop: stop, _runtime: runtime, _dir: dir }
    }

    pub(crate) fn over_unix(&self, json: bool) -> Target {
        at(self.socket.clone(), json)
    }

    pub(crate) fn over_tcp(&self) -> Target {
        at(self.tcp.clone(), false)
    }
}

/// The target of `--admin`.
pub(crate) fn at(endpoint: Endpoint, json: bool) -> Target {
    Target { admin: Some(endpoint), config: None, json }
}

/// Runs a command an hour, two minutes and five seconds after everything in the fake happened.
pub(crate) fn run(command: impl FnOnce(&mut Console<'_>) -> Result<(), Failure>) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let now_unix = MOMENT.unix() + Duration::from_secs(3_725);
    let mut console = Console { out: &mut out, err: &mut err, is_watched: true, now_unix, has_json: false };
    let outcome = command(&mut console);
    let failure = outcome.as_ref().err().and_then(Failure::message).unwrap_or_default();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: exit_code(&outcome), out: text(out), err: text(err), failure }
}
