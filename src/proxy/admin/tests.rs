use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::fake::Fake;
use super::*;

/// Both doors of a fake.
struct Doors {
    tcp: SocketAddr,
    socket: std::path::PathBuf,
    control: Arc<Fake>,
    stop: watch::Sender<bool>,
    servers: JoinSet<()>,
    _dir: tempfile::TempDir,
}

impl Doors {
    async fn open(fake: Fake) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("admin.sock");
        let control = Arc::new(fake);
        let (stop, stopped) = watch::channel(false);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = listener.local_addr().unwrap();
        let mut servers = JoinSet::new();
        servers.spawn(serve_tcp(listener, control.clone(), stopped.clone()));
        servers.spawn(serve_unix(AdminSocket::bind(&socket).unwrap(), control.clone(), stopped));
        Self { tcp, socket, control, stop, servers, _dir: dir }
    }

    async fn over_tcp(&self, request: &str) -> Answer {
        talk(TcpStream::connect(self.tcp).await.unwrap(), request).await
    }

    async fn over_unix(&self, request: &str) -> Answer {
        talk(UnixStream::connect(&self.socket).await.unwrap(), request).await
    }

    fn told(&self) -> Vec<(String, String, Change)> {
        self.control.told()
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        assert!(self.head.contains("Content-Type: application/json"), "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }
}

async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Answer {
    let mut text = String::new();
    timeout(LIMIT, async {
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.read_to_string(&mut text).await.unwrap();
    })
    .await
    .unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer to {request:?}: {text:?}"));
    Answer { status: head[9..12].parse().unwrap(), head: head.to_owned(), body: body.to_owned() }
}

fn request(method: &str, target: &str, host: &str, body: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
}

fn post(target: &str, body: &str) -> String {
    request("POST", target, "localhost", body)
}

#[tokio::test]
async fn both_doors_tell_the_same_with_exactly_the_documented_names() {
    let doors = Doors::open(Fake::default()).await;
    let status = doors.over_tcp(&get("/status")).await.json();
    assert_eq!(status, doors.over_unix(&get("/status")).await.json());
    assert_eq!(
        status,
        json!({
            "pid": 7,
            "version": "0.1.0",
            "config": {
                "file": "/etc/bowline/proxy.toml",
                "generation": 1,
                "last_reload": {"at": "2026-05-28T20:26:40.042Z", "ok": true, "report": null},
            },
            "listeners": [{"name": "https", "address": "0.0.0.0:443", "connections": 2}],
            "pools": [{
                "name": "shiny",
                "policy": "least_sessions",
                "backends": [{
                    "key": "a", "address": "10.0.0.11:3838", "health": "up", "admin": "enabled", "sessions": 3,
                    "in_flight": 1, "requests": 42, "since": "2026-05-28T20:26:40.042Z",
                }],
            }],
        })
    );
    let sessions = doors.over_tcp(&get("/sessions")).await.json();
    assert_eq!(
        sessions,
        json!([{
            "id": 1, "kind": "websocket", "pool": "shiny", "backend": "a", "client": "192.0.2.1:5000",
            "since": "2026-05-28T20:26:40.042Z", "last_activity": "2026-05-28T20:26:40.042Z",
            "bytes_in": 10, "bytes_out": 20,
        }])
    );
    let metrics = doors.over_tcp(&get("/metrics")).await;
    assert!(metrics.head.contains("Content-Type: text/plain; version=0.0.4"), "{metrics:?}");
    assert_eq!(metrics.body, "# nothing yet\n");
}

#[tokio::test]
async fn ready_and_alive_are_two_questions() {
    let doors = Doors::open(Fake { is_starting: true, ..Fake::default() }).await;
    assert_eq!(doors.over_tcp(&get("/livez")).await.status, 200);
    assert_eq!(doors.over_tcp(&get("/readyz")).await.status, 503);
    let doors = Doors::open(Fake::default()).await;
    assert_eq!(doors.over_tcp(&get("/readyz")).await.status, 200);
    let head = doors.over_tcp("HEAD /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.head.contains("Content-Length: 6"), "{head:?}");
}

#[tokio::test]
async fn tcp_changes_nothing() {
    let doors = Doors::open(Fake::default()).await;
    for target in ["/reload", "/backends/shiny/a/drain", "/backends/shiny/a/enable", "/backends/shiny/a/disable"] {
        let answer = doors.over_tcp(&post(target, "")).await;
        assert_eq!(answer.status, 403, "{target}");
        assert!(answer.body.contains("unix socket"), "{answer:?}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let answer = doors.over_tcp(&request(method, "/status", "localhost", "body")).await;
        assert_eq!(answer.status, 405, "{method}");
        assert!(answer.head.contains("Allow: GET, HEAD"), "{answer:?}");
    }
    assert_eq!(doors.told(), []);
}

#[tokio::test]
async fn the_socket_changes_backends() {
    let doors = Doors::open(Fake::default()).await;
    let told = |change| vec![("shiny".to_owned(), "a".to_owned(), change)];
    let hour = Some(Duration::from_secs(3600));
    for (target, body, admin, change) in [
        ("/backends/shiny/a/drain", "", "draining", Change::Drain { deadline: None }),
        ("/backends/shiny/a/drain", "{}", "draining", Change::Drain { deadline: None }),
        ("/backends/shiny/a/drain?deadline=1h", "", "draining", Change::Drain { deadline: hour }),
        ("/backends/shiny/a/drain?deadline=30m%2030m", "", "draining", Change::Drain { deadline: hour }),
        ("/backends/shiny/a/drain", r#"{"deadline": "60m"}"#, "draining", Change::Drain { deadline: hour }),
        ("/backends/%73hiny/a/enable", "", "enabled", Change::Enable),
        ("/backends/shiny/a/disable", "", "disabled", Change::Disable),
    ] {
        let answer = doors.over_unix(&post(target, body)).await;
        assert_eq!(answer.status, 200, "{target} {answer:?}");
        assert_eq!(answer.json(), json!({"pool": "shiny", "backend": "a", "admin": admin}));
        assert_eq!(doors.told(), told(change), "{target} {body}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_said_in_a_sentence_and_changes_nothing() {
    let doors = Doors::open(Fake::default()).await;
    for (request, status, says) in [
        (post("/backends/shinny/a/drain", ""), 404, "no pool named `shinny`"),
        (post("/backends/shiny/z/drain", ""), 404, "pool `shiny` has no backend `z`"),
        (post("/backends/shiny/a/explode", ""), 404, "/livez"),
        (post("/backends/shiny/a", ""), 404, "/livez"),
        (get("/backends/shiny/a/drain"), 405, "POST"),
        (get("/reload"), 405, "POST"),
        (get("/"), 404, "/livez"),
        (get("/status/"), 404, "/livez"),
        (post("/backends/shiny/a/drain?deadline=soon", ""), 400, "`soon`"),
        (post("/backends/shiny/a/drain?deadline=900y", ""), 400, "longer than a year"),
        (post("/backends/shiny/a/drain?until=8h", ""), 400, "until=8h"),
        (post("/backends/shiny/a/drain", "8h"), 400, "not JSON"),
        (post("/backends/shiny/a/drain", r#"{"limit": "8h"}"#), 400, "not JSON"),
        (post("/backends/shiny/a/drain?deadline=1h", r#"{"deadline": "2h"}"#), 400, "both"),
        (post("/backends/shiny/a/enable?deadline=1h", ""), 400, "only `drain`"),
        (post("/backends/%zz/a/drain", ""), 400, "percent"),
        (post("/backends/%ff/a/drain", ""), 400, "percent"),
        ("POST /reload HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), 411, "Content-Length"),
        ("POST /reload HTTP/1.1\r\nContent-Length: 70000\r\n\r\n".to_owned(), 413, "65536"),
        ("POST /reload HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\nx".to_owned(), 400, "one number"),
        ("POST /reload HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\nx".to_owned(), 413, "65536"),
        ("GET /status HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), 400, "two Host"),
        ("nonsense\r\n\r\n".to_owned(), 400, "not a request"),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(20_000)), 431, "16384"),
        (format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65)), 431, "64 fields"),
    ] {
        let answer = doors.over_unix(&request).await;
        assert_eq!(answer.status, status, "{request:?} {answer:?}");
        assert!(answer.body.contains(says), "{request:?} {answer:?}");
        assert_eq!(answer.body.lines().count(), 1, "{answer:?}");
    }
    assert_eq!(doors.told(), []);
}

#[tokio::test]
async fn a_reload_answers_with_what_changed_or_with_the_report() {
    let doors = Doors::open(Fake::default()).await;
    let answer = doors.over_unix(&post("/reload", "")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["generation"], 2);
    let doors = Doors::open(Fake { refuses_reload: true, ..Fake::default() }).await;
    let answer = doors.over_unix(&post("/reload", "")).await;
    assert_eq!(answer.status, 409);
    assert_eq!(answer.json()["report"], "proxy.toml:3:1: no pool named `shinny`");
    assert_eq!(answer.json()["problems"][0]["line"], 3);
}

#[tokio::test]
async fn a_page_under_a_foreign_name_reads_nothing() {
    let doors = Doors::open(Fake::default()).await;
    let rebound = doors.over_tcp(&request("GET", "/sessions", "evil.example:9443", "")).await;
    assert_eq!(rebound.status, 403);
    assert!(!rebound.body.contains("192.0.2.1"));
    for host in ["localhost:9443", "127.0.0.1", "[::1]:9443"] {
        assert_eq!(doors.over_tcp(&request("GET", "/sessions", host, "")).await.status, 200, "{host}");
    }
    assert_eq!(doors.over_tcp("GET /livez HTTP/1.0\r\n\r\n").await.status, 200);
}

#[tokio::test]
async fn a_request_may_come_in_pieces() {
    let doors = Doors::open(Fake::default()).await;
    let mut stream = UnixStream::connect(&doors.socket).await.unwrap();
    for byte in post("/backends/shiny/a/drain", r#"{"deadline":"1m"}"#).bytes() {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut text = String::new();
    timeout(LIMIT, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert_eq!(doors.told()[0].2, Change::Drain { deadline: Some(Duration::from_secs(60)) });
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_or_half_is_not_waited_for() {
    let (mut client, mut server) = tokio::io::duplex(1 << 10);
    client.write_all(b"GET /status HTT").await.unwrap();
    let refusal = exchange::read(&mut server).await.unwrap_err().unwrap();
    assert_eq!(refusal.status, 408);
    let (_silent, mut server) = tokio::io::duplex(1 << 10);
    assert!(exchange::read(&mut server).await.unwrap_err().is_none());
    let (mut client, mut server) = tokio::io::duplex(1 << 10);
    client.write_all(b"POST /reload HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf").await.unwrap();
    assert_eq!(exchange::read(&mut server).await.unwrap_err().unwrap().status, 408);
}

#[tokio::test]
async fn silent_connections_cannot_shut_the_other_door_and_stopping_takes_them_along() {
    let mut doors = Doors::open(Fake::default()).await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX + 1 {
        silent.push(TcpStream::connect(doors.tcp).await.unwrap());
    }
    assert_eq!(doors.over_unix(&get("/livez")).await.status, 200);
    doors.stop.send(true).unwrap();
    drop(silent);
    timeout(LIMIT, async { while doors.servers.join_next().await.is_some() {} }).await.unwrap();
    assert!(!doors.socket.exists(), "the socket's file goes with the server");
}

const LIMIT: Duration = Duration::from_secs(20);
