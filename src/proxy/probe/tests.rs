use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::config::proxy as settings;
use crate::config::proxy::{AdminState, ListenerTls, Policy, PoolTimeouts, TlsVersion, UpstreamTls};
use crate::proxy::certificates::Certificates;
use crate::proxy::certificates::making::{Authority, NOW, put};
use crate::proxy::listener::tls::{Tickets, accept, server_config};
use crate::proxy::pool::Health;
use crate::proxy::stream::Socket;

const LONG: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3600);

fn http(path: &str) -> Probe {
    Probe {
        kind: ProbeKind::Http { path: path.to_owned(), host: None, status: (200, 399) },
        interval: HOUR,
        fast_interval: HOUR,
        timeout: LONG,
        rise: 2,
        fall: 3,
    }
}

fn impatient(path: &str) -> Probe {
    Probe { timeout: Duration::from_millis(150), ..http(path) }
}

fn address(at: SocketAddr) -> BackendAddress {
    BackendAddress::Inet { host: at.ip().to_string(), port: at.port() }
}

/// Reads a request's head.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.expect("a head"));
    }
    String::from_utf8(text).expect("text")
}

/// What a scripted server does with its one client.
enum Script {
    /// Sends this and closes.
    Say(Vec<u8>),
    /// Sends this and stays.
    SayAndStay(Vec<u8>),
    /// Sends this again and again, until the client has enough.
    Repeat(Vec<u8>, Vec<u8>),
    /// Sends this byte by byte, 20 ms apart.
    Drip(Vec<u8>),
    /// Closes without a word.
    Close,
}

impl Script {
    async fn perform(self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
        let request = head(stream).await;
        match self {
            Self::Say(text) => {
                let _ = stream.write_all(&text).await;
                let _ = stream.flush().await;
            }
            Self::SayAndStay(text) => {
                let _ = stream.write_all(&text).await;
                let _ = stream.flush().await;
                let _ = stream.read_u8().await;
            }
            Self::Repeat(first, then) => {
                let _ = stream.write_all(&first).await;
                while stream.write_all(&then).await.is_ok() {}
            }
            Self::Drip(text) => {
                for byte in text {
                    if stream.write_all(&[byte]).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            Self::Close => (),
        }
        request
    }
}

/// Asks a scripted server; the answer and the request it saw.
async fn asked(script: Script, probe: &Probe) -> (Result<(), ProbeError>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let at = address(listener.local_addr().expect("address"));
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accepted");
        script.perform(&mut stream).await
    });
    let answer = timeout(LONG, ask(&at, probe, None)).await.expect("a probe ends");
    (answer, timeout(LONG, server).await.expect("a script ends").expect("performed"))
}

fn say(text: &str) -> Script {
    Script::Say(text.as_bytes().to_vec())
}

#[tokio::test]
async fn the_request_is_a_plain_get_that_closes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let at = address(listener.local_addr().expect("address"));
    let mut probe = http("/__ping__?x=1");
    for host in [None, Some("app.example".to_owned())] {
        let expected = host.clone().unwrap_or_else(|| at.to_string());
        probe.kind = ProbeKind::Http { path: "/__ping__?x=1".to_owned(), host, status: (200, 200) };
        let (answer, request) = tokio::join!(ask(&at, &probe, None), async {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            say("HTTP/1.1 200 OK\r\n\r\n").perform(&mut stream).await
        });
        answer.expect("good");
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            request,
            format!(
                "GET /__ping__?x=1 HTTP/1.1\r\nHost: {expected}\r\nUser-Agent: bowline/{version} probe\r\n\
                 Accept: */*\r\nConnection: close\r\n\r\n"
            )
        );
    }
}

#[tokio::test]
async fn answers_that_are_whole_and_of_a_good_status_are_good() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n";
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\nuntil the end",
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        &format!("{chunked}\r\n"),
        &format!("{chunked}Trailer: x\r\n\r\n"),
    ] {
        let (answer, _) = asked(say(text), &http("/")).await;
        assert!(answer.is_ok(), "{text:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_server_that_keeps_the_connection_open_is_not_waited_for() {
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
    ] {
        let (answer, _) = asked(Script::SayAndStay(text.into()), &http("/")).await;
        assert!(answer.is_ok(), "{text:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_status_outside_the_range_is_bad_whatever_follows() {
    for (status, range, is_good) in [
        (200, (200, 399), true),
        (399, (200, 399), true),
        (400, (200, 399), false),
        (503, (200, 399), false),
        (401, (200, 401), true),
        (101, (200, 399), false),
    ] {
        let mut probe = http("/");
        probe.kind = ProbeKind::Http { path: "/".to_owned(), host: None, status: range };
        let text = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
        match asked(say(&text), &probe).await.0 {
            Ok(()) => assert!(is_good, "{status}"),
            Err(ProbeError::Status(found)) => assert!(!is_good && found == status, "{status}"),
            Err(other) => panic!("{status}: {other:?}"),
        }
    }
    let (answer, _) =
        asked(Script::SayAndStay(b"HTTP/1.1 500 X\r\nContent-Length: 9\r\n\r\n".to_vec()), &http("/")).await;
    assert!(matches!(answer, Err(ProbeError::Status(500))), "{answer:?}");
}

#[tokio::test]
async fn what_is_not_a_whole_http_answer_is_bad() {
    type Judge = fn(&ProbeError) -> bool;
    let closed: Judge = |e| matches!(e, ProbeError::Closed);
    let malformed: Judge = |e| matches!(e, ProbeError::Malformed(_));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(101));
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(9);
    for (script, is_right) in [
        (Script::Close, closed),
        (say("HTTP/1.1 200 OK\r\nContent-"), closed),
        (say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"), closed),
        (say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nshort"), closed),
        (say("SSH-2.0-OpenSSH_9.2\r\n"), malformed),
        (say("HTTP/2 200\r\n\r\n"), malformed),
        (say("HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"), malformed),
        (say(&many), malformed),
        (say(&interim), malformed),
        (Script::Repeat(b"HTTP/1.1 200 OK\r\nA: ".to_vec(), vec![b'a'; 4096]), malformed),
    ] {
        let (answer, _) = asked(script, &http("/")).await;
        let error = answer.expect_err("bad");
        assert!(is_right(&error), "{error:?}");
    }
}

#[tokio::test]
async fn a_body_without_end_is_read_for_64_kib_and_no_further() {
    for first in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"] {
        let (answer, _) = asked(Script::Repeat(first.into(), vec![b'x'; 4096]), &http("/")).await;
        assert!(answer.is_ok(), "{answer:?}");
    }
}

#[tokio::test]
async fn silence_and_dripping_end_with_the_timeout() {
    let drip = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
    for script in [
        Script::SayAndStay(Vec::new()),
        Script::SayAndStay(b"HTTP/1.1 200 OK\r\n".to_vec()),
        Script::SayAndStay(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no".to_vec()),
        Script::SayAndStay(b"HTTP/1.1 200 OK\r\n\r\nuntil the end, which never comes".to_vec()),
        Script::Drip(drip),
    ] {
        let (answer, _) = asked(script, &impatient("/")).await;
        assert!(matches!(answer, Err(ProbeError::TimedOut)), "{answer:?}");
    }
}

#[tokio::test]
async fn nobody_there_is_a_refusal_and_counts_as_one() {
    let socket = tokio::net::TcpSocket::new_v4().expect("socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("bound");
    let at = address(socket.local_addr().expect("address"));
    for probe in [http("/"), Probe { kind: ProbeKind::Tcp, ..http("/") }] {
        let answer = ask(&at, &probe, None).await;
        assert!(matches!(answer, Err(ProbeError::Dial(DialError::Refused { .. }))), "{answer:?}");
        assert_eq!(outcome(&answer), Outcome::Refused);
    }
    assert_eq!(outcome(&Ok(())), Outcome::ProbeOk);
    assert_eq!(outcome(&Err(ProbeError::TimedOut)), Outcome::ProbeFailed);
    assert_eq!(outcome(&Err(ProbeError::Status(500))), Outcome::ProbeFailed);
}

#[tokio::test]
async fn a_tcp_probe_wants_a_connection_and_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let at = address(listener.local_addr().expect("address"));
    let probe = Probe { kind: ProbeKind::Tcp, ..http("/") };
    ask(&at, &probe, None).await.expect("it is there");
    let (mut stream, _) = listener.accept().await.expect("accepted");
    assert_eq!(stream.read(&mut [0; 8]).await.expect("an end"), 0);
}

#[tokio::test]
async fn unix_sockets_are_probed_as_localhost() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("app.sock");
    let at = BackendAddress::Unix(path.clone());
    let answer = ask(&at, &http("/"), None).await;
    assert_eq!(outcome(&answer), Outcome::Refused);
    let listener = UnixListener::bind(&path).expect("bound");
    let probe = http("/");
    let (answer, request) = tokio::join!(ask(&at, &probe, None), async {
        let (mut stream, _) = listener.accept().await.expect("accepted");
        say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").perform(&mut stream).await
    });
    answer.expect("good");
    assert!(request.contains("\r\nHost: localhost\r\n"), "{request}");
}

#[tokio::test]
async fn pools_with_tls_are_probed_by_tls_and_verified() {
    let folder = tempfile::tempdir().expect("folder");
    let ca = Authority::new("root");
    put(folder.path(), "x", &ca.issue(&["app.example"]));
    let (certificates, _) = Certificates::load(folder.path(), NOW);
    let slot = Arc::new(ArcSwap::from_pointee(certificates.expect("certificates")));
    let tls = ListenerTls { certificates: PathBuf::new(), minimum: TlsVersion::Tls12, http2: true };
    let server = server_config(&tls, slot, &Tickets::new().expect("randomness")).expect("config");
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, &ca.pem).expect("written");
    let client = |name: &str| {
        let tls = UpstreamTls { ca_file: Some(ca_file.clone()), server_name: name.to_owned() };
        UpstreamTlsConfig::load(&tls).expect("config")
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let at = address(listener.local_addr().expect("address"));
    for probe in [http("/"), Probe { kind: ProbeKind::Tcp, ..http("/") }] {
        for (name, is_good) in [("app.example", true), ("other.example", false)] {
            let client = client(name);
            let (answer, ()) = tokio::join!(ask(&at, &probe, Some(&client)), async {
                let (stream, _) = listener.accept().await.expect("accepted");
                let Ok(accepted) = accept(Socket::Tcp(stream), Arc::clone(&server), LONG).await else { return };
                let mut stream = accepted.stream;
                if probe.kind != ProbeKind::Tcp {
                    // No length and no close_notify: the end of the connection is the end of the answer.
                    say("HTTP/1.1 200 OK\r\n\r\nok").perform(&mut stream).await;
                }
            });
            match answer {
                Ok(()) => assert!(is_good, "{name}"),
                Err(ProbeError::Dial(DialError::Tls { .. })) => assert!(!is_good, "{name}"),
                Err(other) => panic!("{name}: {other:?}"),
            }
        }
    }
}

#[test]
fn jitter_spreads_by_a_tenth_and_from_any_seed() {
    for seed in [0, 1, u64::MAX, random_seed()] {
        let mut jitter = Jitter::new(seed);
        let spread: Vec<_> = (0..1000).map(|_| jitter.spread(Duration::from_secs(10)).as_secs_f64()).collect();
        assert!(spread.iter().all(|s| (8.999..=11.001).contains(s)), "seed {seed}");
        assert!(spread.iter().any(|s| *s < 9.3) && spread.iter().any(|s| *s > 10.7), "seed {seed}");
        let mean = spread.iter().sum::<f64>() / 1000.0;
        assert!((9.9..10.1).contains(&mean), "seed {seed}: {mean}");
    }
}

/// A backend whose pool is the test.
struct Fake {
    address: BackendAddress,
    is_settled: AtomicBool,
    seen: Mutex<Vec<Outcome>>,
}

impl Fake {
    fn new(address: BackendAddress, is_settled: bool) -> Arc<Self> {
        Arc::new(Self { address, is_settled: AtomicBool::new(is_settled), seen: Mutex::default() })
    }
}

impl Target for Fake {
    fn address(&self) -> &BackendAddress {
        &self.address
    }

    fn is_settled(&self) -> bool {
        self.is_settled.load(Ordering::Relaxed)
    }

    fn observe(&self, outcome: Outcome) -> Option<Transition> {
        self.seen.lock().expect("lock").push(outcome);
        None
    }
}

/// Accepts and answers everybody; says each time that it did.
async fn server() -> (BackendAddress, mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let at = address(listener.local_addr().expect("address"));
    let (told, probes) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            let told = told.clone();
            tokio::spawn(async move {
                say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").perform(&mut stream).await;
                let _ = told.send(());
            });
        }
    });
    (at, probes)
}

/// Verdicts as they come.
type Verdicts = mpsc::UnboundedReceiver<(BackendAddress, Outcome)>;

fn start(targets: Vec<Arc<Fake>>, probe: Probe) -> (Verdicts, watch::Sender<bool>, tokio::task::JoinHandle<()>) {
    let (verdict, verdicts) = mpsc::unbounded_channel();
    let (stop, stopped) = watch::channel(false);
    let on_verdict = move |target: &Fake, answer: &Answer, _: Option<Transition>| {
        let _ = verdict.send((target.address.clone(), outcome(answer)));
    };
    let task = tokio::spawn(schedule(targets, probe, None, on_verdict, || 1, stopped));
    (verdicts, stop, task)
}

async fn next(verdicts: &mut Verdicts) -> (BackendAddress, Outcome) {
    timeout(LONG, verdicts.recv()).await.expect("a probe in time").expect("it runs")
}

#[tokio::test]
async fn each_backend_is_probed_at_once_and_told_to_the_pool() {
    let (first, _a) = server().await;
    let (second, _b) = server().await;
    let targets = vec![Fake::new(first.clone(), true), Fake::new(second.clone(), true)];
    let (mut verdicts, stop, task) = start(targets.clone(), http("/"));
    let mut seen = [next(&mut verdicts).await, next(&mut verdicts).await];
    seen.sort_by_key(|(address, _)| *address != first);
    assert_eq!(seen, [(first, Outcome::ProbeOk), (second, Outcome::ProbeOk)]);
    for target in &targets {
        assert_eq!(*target.seen.lock().expect("lock"), [Outcome::ProbeOk]);
    }
    stop.send(true).expect("it runs");
    timeout(LONG, task).await.expect("it stops").expect("without a panic");
}

#[tokio::test]
async fn probing_stops_when_the_sender_is_gone_and_in_the_middle_of_a_probe() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let at = address(listener.local_addr().expect("address"));
    let (_verdicts, stop, task) = start(vec![Fake::new(at, true)], http("/"));
    let (mut stream, _) = listener.accept().await.expect("accepted");
    head(&mut stream).await;
    drop(stop);
    timeout(LONG, task).await.expect("it stops").expect("without a panic");
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0, "the probe's connection is closed");
}

#[tokio::test]
async fn an_unsettled_backend_is_probed_fast_and_a_settled_one_slowly() {
    let (at, _probes) = server().await;
    let target = Fake::new(at, false);
    let probe = Probe { fast_interval: Duration::from_millis(10), ..http("/") };
    let (mut verdicts, stop, task) = start(vec![Arc::clone(&target)], probe);
    for _ in 0..4 {
        next(&mut verdicts).await;
    }
    target.is_settled.store(true, Ordering::Relaxed);
    // One may have been under way.
    while timeout(Duration::from_millis(500), verdicts.recv()).await.is_ok() {}
    assert!(timeout(Duration::from_millis(500), verdicts.recv()).await.is_err(), "the next is an hour away");
    // Requests cast doubt on it: it is asked before its turn.
    target.is_settled.store(false, Ordering::Relaxed);
    next(&mut verdicts).await;
    stop.send(true).expect("it runs");
    timeout(LONG, task).await.expect("it stops").expect("without a panic");
}

#[tokio::test]
async fn a_settled_backend_is_probed_again_after_the_interval() {
    let (at, _probes) = server().await;
    let interval = Duration::from_millis(200);
    let probe = Probe { interval, fast_interval: interval, ..http("/") };
    let (mut verdicts, _stop, _task) = start(vec![Fake::new(at, true)], probe);
    next(&mut verdicts).await;
    let begun = clock::now();
    next(&mut verdicts).await;
    next(&mut verdicts).await;
    // Two intervals, each a tenth shorter at most; the first probe itself took a moment of the first.
    assert!(clock::now() - begun > Duration::from_millis(300), "{:?}", clock::now() - begun);
}

#[tokio::test]
async fn a_panic_in_the_callers_code_does_not_leave_a_backend_unwatched() {
    let (at, mut probes) = server().await;
    let (_stop, stopped) = watch::channel(false);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let on_verdict = move |_: &Fake, _: &Answer, _: Option<Transition>| {
        assert!(counted.fetch_add(1, Ordering::Relaxed) > 0, "the first call breaks off");
    };
    let probe = Probe { interval: Duration::from_millis(20), ..http("/") };
    let task = tokio::spawn(schedule(vec![Fake::new(at, true)], probe, None, on_verdict, || 1, stopped));
    for _ in 0..3 {
        timeout(LONG, probes.recv()).await.expect("a probe in time").expect("the server lives");
    }
    assert!(calls.load(Ordering::Relaxed) >= 2);
    task.abort();
}

#[tokio::test]
async fn no_more_probes_than_the_bound_are_under_way() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let at = address(listener.local_addr().expect("address"));
    let count = PROBES_MAX + 40;
    let targets = (0..count).map(|_| Fake::new(at.clone(), true)).collect();
    let (mut verdicts, _stop, _task) = start(targets, http("/"));
    let mut open: Vec<TcpStream> = Vec::new();
    for _ in 0..PROBES_MAX {
        open.push(timeout(LONG, listener.accept()).await.expect("in time").expect("accepted").0);
    }
    let more = timeout(Duration::from_millis(200), listener.accept()).await;
    assert!(more.is_err(), "one more than the bound");
    open.truncate(PROBES_MAX - 40);
    for _ in 0..40 {
        open.push(timeout(LONG, listener.accept()).await.expect("in time").expect("accepted").0);
    }
    drop(open);
    for _ in 0..count {
        assert_eq!(next(&mut verdicts).await.1, Outcome::ProbeFailed);
    }
}

fn pool(backends: &[(&str, &BackendAddress)], probe: Option<Probe>) -> Arc<Pool> {
    let second = Duration::from_secs(1);
    let backend = |(key, address): &(&str, &BackendAddress)| settings::Backend {
        key: key.parse().expect("a key"),
        address: (*address).clone(),
        weight: 1,
        admin: AdminState::Enabled,
    };
    let settings = settings::Pool {
        name: "app".into(),
        policy: Policy::LeastSessions,
        affinity: None,
        tls: None,
        probe,
        backends: backends.iter().map(backend).collect(),
        timeouts: PoolTimeouts {
            connect: second,
            response: second,
            body: second,
            keepalive: second,
            tunnel_idle: second,
            tunnel_ping: second,
            startup: second,
        },
        reconnect_shim: false,
        rsc_request: false,
        heeds_leaving: false,
        fail_open: false,
        retries: 1,
    };
    Arc::new(Pool::new(Arc::new(settings), None, clock::now()))
}

#[tokio::test]
async fn a_pool_learns_who_is_up_who_went_down_and_who_came_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let bound = listener.local_addr().expect("address");
    let at = address(bound);
    let gone = BackendAddress::Unix("/nonexistent/app.sock".into());
    let probe = Probe {
        kind: ProbeKind::Tcp,
        interval: Duration::from_millis(100),
        fast_interval: Duration::from_millis(100),
        ..http("/")
    };
    let pool = pool(&[("a", &at), ("b", &gone)], Some(probe));
    let (told, mut changes) = mpsc::unbounded_channel();
    let on_verdict = move |pool: &Pool, backend: &Backend, _: &Answer, transition: Option<Transition>| {
        if let Some(transition) = transition {
            let _ = told.send((format!("{}/{}", pool.name(), backend.key()), transition.from, transition.to));
        }
    };
    let (_stop, stopped) = watch::channel(false);
    let task = tokio::spawn(run(Arc::clone(&pool), None, on_verdict, stopped));
    let mut change = async || timeout(LONG, changes.recv()).await.expect("in time").expect("it runs");
    let mut first = [change().await, change().await];
    first.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(first[0], ("app/a".to_owned(), Health::Unknown, Health::Up));
    assert_eq!(first[1], ("app/b".to_owned(), Health::Unknown, Health::Down));
    drop(listener);
    assert_eq!(change().await, ("app/a".to_owned(), Health::Up, Health::Down));
    let again = tokio::net::TcpSocket::new_v4().expect("socket");
    again.set_reuseaddr(true).expect("option");
    again.bind(bound).expect("bound again");
    let _listener = again.listen(64).expect("listening");
    assert_eq!(change().await, ("app/a".to_owned(), Health::Down, Health::Up));
    task.abort();
}

#[tokio::test]
async fn a_pool_without_probe_is_left_alone() {
    let gone = BackendAddress::Unix("/nonexistent/app.sock".into());
    let (_stop, stopped) = watch::channel(false);
    let run = run(pool(&[("a", &gone)], None), None, |_, _, _, _| panic!("asked"), stopped);
    timeout(LONG, run).await.expect("it returns");
}
