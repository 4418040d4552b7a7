use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use super::*;
use crate::config::proxy::{ListenerTls, TlsVersion, UpstreamTls};
use crate::proxy::certificates::Certificates;
use crate::proxy::certificates::making::{self, Authority, Issued, NOW, put};
use crate::proxy::listener::tls::{Tickets, accept, server_config};

const LONG: Duration = Duration::from_secs(20);

fn inet(host: &str, port: u16) -> BackendAddress {
    BackendAddress::Inet { host: host.to_owned(), port }
}

/// Accepts one connection and greets it.
async fn greeter(listener: TcpListener) {
    let (mut stream, _) = listener.accept().await.expect("accepted");
    stream.write_all(b"hello").await.expect("written");
}

async fn greeting(mut stream: Stream) -> String {
    let mut text = [0; 5];
    stream.read_exact(&mut text).await.expect("a greeting");
    String::from_utf8_lossy(&text).into_owned()
}

/// A port nobody listens on: bound, and so not given to anybody else, but not listening.
fn closed_port() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().expect("socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("bound");
    let port = socket.local_addr().expect("address").port();
    (socket, port)
}

#[tokio::test]
async fn addresses_and_names_are_dialled_with_the_options_a_proxy_needs() {
    for host in ["127.0.0.1", "localhost"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("address").port();
        let server = tokio::spawn(greeter(listener));
        let stream = connect(&inet(host, port), None, LONG).await.expect(host);
        let Socket::Tcp(tcp) = stream.socket() else { panic!("not TCP") };
        assert!(tcp.nodelay().expect("option"));
        let socket = SockRef::from(tcp);
        assert!(socket.keepalive().expect("option"));
        assert_eq!(socket.tcp_keepalive_time().expect("option"), Duration::from_secs(15));
        assert_eq!(socket.tcp_keepalive_interval().expect("option"), Duration::from_secs(5));
        assert_eq!(socket.tcp_keepalive_retries().expect("option"), 3);
        assert_eq!(socket.tcp_user_timeout().expect("option"), Some(USER_TIMEOUT));
        assert_eq!(greeting(stream).await, "hello");
        server.await.expect("server");
    }
}

#[tokio::test]
async fn ipv6_is_dialled() {
    let listener = TcpListener::bind("[::1]:0").await.expect("bound");
    let port = listener.local_addr().expect("address").port();
    let server = tokio::spawn(greeter(listener));
    assert_eq!(greeting(connect(&inet("::1", port), None, LONG).await.expect("connected")).await, "hello");
    server.await.expect("server");
}

#[tokio::test]
async fn a_port_without_listener_refuses() {
    let (_held, port) = closed_port();
    for host in ["127.0.0.1", "localhost"] {
        let error = connect(&inet(host, port), None, LONG).await.expect_err("nobody is there");
        assert!(matches!(error, DialError::Refused { .. }), "{host}: {error:?}");
        assert_eq!(error.cause(), "refused");
        assert_eq!(error.to_string(), format!("`{host}:{port}` refused the connection"));
    }
}

#[tokio::test]
async fn a_unix_socket_is_dialled_and_refuses_when_it_is_gone_or_dead() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("app.sock");
    let address = BackendAddress::Unix(path.clone());
    let refused = async || matches!(connect(&address, None, LONG).await, Err(DialError::Refused { .. }));
    assert!(refused().await, "no file");
    let listener = UnixListener::bind(&path).expect("bound");
    let (stream, accepted) = tokio::join!(connect(&address, None, LONG), listener.accept());
    let (mut peer, _) = accepted.expect("accepted");
    peer.write_all(b"hello").await.expect("written");
    assert_eq!(greeting(stream.expect("connected")).await, "hello");
    drop(listener);
    assert!(refused().await, "a file, but nobody behind it");
}

#[tokio::test]
async fn a_unix_socket_with_a_full_queue_is_waited_for() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("app.sock");
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).expect("socket");
    socket.bind(&socket2::SockAddr::unix(&path).expect("path")).expect("bound");
    socket.listen(0).expect("listening");
    let listener = StdUnixListener::from(socket);
    let address = BackendAddress::Unix(path);
    let first = connect(&address, None, LONG).await.expect("there is one place");
    let error = connect(&address, None, Duration::from_millis(100)).await.expect_err("no place");
    assert!(matches!(error, DialError::TimedOut { .. }), "{error:?}");
    let accept = tokio::task::spawn_blocking(move || (listener.accept(), listener));
    connect(&address, None, LONG).await.expect("a place became free");
    accept.await.expect("joined").0.expect("accepted");
    drop(first);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_said_so() {
    // Reserved for never resolving (RFC 6761 §6.4); the length makes it fail without asking a server.
    let name = format!("{}.invalid", "x".repeat(70));
    let error = connect(&inet(&name, 80), None, LONG).await.expect_err("no such name");
    assert!(matches!(error, DialError::Resolve { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_says_nothing_times_out_in_the_handshake() {
    let folder = tempfile::tempdir().expect("folder");
    let ca = Authority::new("root");
    let tls = trusting(folder.path(), &ca.pem, "app.example");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("address").port();
    let error = connect(&inet("127.0.0.1", port), Some(&tls), Duration::from_millis(100)).await.expect_err("silence");
    assert!(matches!(error, DialError::TimedOut { .. }), "{error:?}");
}

#[tokio::test]
async fn the_first_address_that_answers_wins() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let good = listener.local_addr().expect("address");
    let (_held, port) = closed_port();
    let bad = SocketAddr::from(([127, 0, 0, 1], port));
    // A refusal moves on at once, well before the pause between addresses.
    let stream = tokio::time::timeout(LONG, first_of(vec![bad, bad, good])).await.expect("in time");
    assert_eq!(stream.ok().expect("connected").peer_addr().expect("address"), good);
    let all_bad = tokio::time::timeout(LONG, first_of(vec![bad, bad])).await.expect("in time");
    assert!(matches!(all_bad, Err(Failure::Refused)));
}

#[tokio::test]
async fn an_address_that_stays_silent_does_not_hold_up_the_next() {
    // A listener whose queue is full drops what comes: the kernel's way to be silent.
    let silent = TcpSocket::new_v4().expect("socket");
    silent.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("bound");
    let silent = silent.listen(1).expect("listening");
    let mute = silent.local_addr().expect("address");
    let mut fill = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(mute)).await {
        fill.push(stream);
        assert!(fill.len() < 64, "the queue never fills");
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let good = listener.local_addr().expect("address");
    // Without the head start of the second address this would last until the kernel gives up, two minutes later.
    let stream = tokio::time::timeout(LONG, first_of(vec![mute, good])).await.expect("in time");
    assert_eq!(stream.ok().expect("connected").peer_addr().expect("address"), good);
    let error = connect(&inet("127.0.0.1", mute.port()), None, Duration::from_millis(100)).await.expect_err("silence");
    assert!(matches!(error, DialError::TimedOut { .. }), "{error:?}");
}

#[test]
fn families_take_turns_and_the_number_of_addresses_is_bounded() {
    let v4 = |n: u8| SocketAddr::from(([10, 0, 0, n], 80));
    let v6 = |n: u16| SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, n], 80));
    assert_eq!(interleave(vec![v6(1), v6(2), v6(3), v4(1)]), [v6(1), v4(1), v6(2), v6(3)]);
    assert_eq!(interleave(vec![v4(1), v6(1), v6(2)]), [v4(1), v6(1), v6(2)]);
    assert_eq!(interleave(Vec::new()), []);
    assert_eq!(interleave((0..100).map(v4).collect()).len(), ADDRESSES_MAX);
}

fn settings(ca_file: Option<PathBuf>, name: &str) -> UpstreamTls {
    UpstreamTls { ca_file, server_name: name.to_owned() }
}

fn trusting(folder: &Path, pem: &str, name: &str) -> UpstreamTlsConfig {
    let file = folder.join("ca.pem");
    std::fs::write(&file, pem).expect("written");
    UpstreamTlsConfig::load(&settings(Some(file), name)).expect("config")
}

fn server(issued: &Issued) -> Arc<ServerConfig> {
    let folder = tempfile::tempdir().expect("folder");
    put(folder.path(), "x", issued);
    let (certificates, _) = Certificates::load(folder.path(), NOW);
    let slot = Arc::new(ArcSwap::from_pointee(certificates.expect("certificates")));
    let tls = ListenerTls { certificates: PathBuf::new(), minimum: TlsVersion::Tls12, http2: true };
    server_config(&tls, slot, &Tickets::new().expect("randomness")).expect("config")
}

/// Dials a server that shows `issued`, and hears its greeting.
async fn dial(issued: &Issued, tls: &UpstreamTlsConfig) -> Result<(), DialError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("address").port();
    let config = server(issued);
    let server = async {
        let (stream, _) = listener.accept().await.expect("accepted");
        if let Ok(mut accepted) = accept(Socket::Tcp(stream), config, LONG).await {
            assert!(!accepted.is_h2);
            let _ = accepted.stream.write_all(b"hello").await;
            let _ = accepted.stream.flush().await;
            return Some(accepted.stream);
        }
        None
    };
    let address = inet("127.0.0.1", port);
    let (stream, _server) = tokio::join!(connect(&address, Some(tls), LONG), server);
    assert_eq!(greeting(stream?).await, "hello");
    Ok(())
}

fn certificate_error(result: Result<(), DialError>) -> rustls::CertificateError {
    match result.expect_err("not trusted") {
        DialError::Tls { source: rustls::Error::InvalidCertificate(error), .. } => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_backend_is_trusted_by_its_issuer_and_its_name() {
    use rustls::CertificateError as Why;
    let folder = tempfile::tempdir().expect("folder");
    let ca = Authority::new("root");
    let tls = trusting(folder.path(), &ca.pem, "app.example");
    let good = ca.issue(&["app.example"]);
    dial(&good, &tls).await.expect("trusted");
    let under = ca.under("under");
    let leaf = under.issue(&["app.example"]);
    dial(&Issued { chain: leaf.chain + &under.pem, key: leaf.key }, &tls).await.expect("trusted over two steps");

    let other = Authority::new("root").issue(&["app.example"]);
    let why = certificate_error(dial(&other, &tls).await);
    assert!(matches!(why, Why::UnknownIssuer | Why::BadSignature), "{why:?}");
    let why = certificate_error(dial(&ca.issue(&["other.example"]), &tls).await);
    assert!(matches!(why, Why::NotValidForName | Why::NotValidForNameContext { .. }), "{why:?}");
    let expired = ca.issue_with(&["app.example"], 2020..2021, &making::ecdsa());
    let why = certificate_error(dial(&expired, &tls).await);
    assert!(matches!(why, Why::Expired | Why::ExpiredContext { .. }), "{why:?}");
}

#[tokio::test]
async fn an_ip_address_is_a_name_too() {
    let folder = tempfile::tempdir().expect("folder");
    let ca = Authority::new("root");
    let tls = trusting(folder.path(), &ca.pem, "127.0.0.1");
    dial(&ca.issue(&["127.0.0.1"]), &tls).await.expect("trusted");
    certificate_error(dial(&ca.issue(&["127.0.0.2"]), &tls).await);
}

#[tokio::test]
async fn a_self_signed_certificate_in_the_file_is_trusted_unless_it_calls_itself_a_ca() {
    let folder = tempfile::tempdir().expect("folder");
    let own = making::self_signed(&["app.example"], 2020..2120, rcgen::IsCa::ExplicitNoCa);
    let tls = trusting(folder.path(), &own.chain, "app.example");
    dial(&own, &tls).await.expect("trusted");
    let other = making::self_signed(&["app.example"], 2020..2120, rcgen::IsCa::ExplicitNoCa);
    certificate_error(dial(&other, &tls).await);
    let ca = making::self_signed(&["app.example"], 2020..2120, rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
    certificate_error(dial(&ca, &trusting(folder.path(), &ca.chain, "app.example")).await);
}

#[tokio::test]
async fn a_server_that_closes_instead_of_a_handshake_is_no_refusal() {
    let folder = tempfile::tempdir().expect("folder");
    let tls = trusting(folder.path(), &Authority::new("root").pem, "app.example");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("address").port();
    let address = inet("127.0.0.1", port);
    let (client, _) = tokio::join!(connect(&address, Some(&tls), LONG), async {
        let (mut stream, _) = listener.accept().await.expect("accepted");
        // Taken before closing, so that the end is an end and not a reset.
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).await.expect("a hello");
    });
    assert!(matches!(client, Err(DialError::Io { .. })), "{client:?}");
}

#[test]
fn settings_that_cannot_work_say_why() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("ca.pem");
    let load = |contents: &[u8]| {
        std::fs::write(&file, contents).expect("written");
        UpstreamTlsConfig::load(&settings(Some(file.clone()), "app.example")).expect_err("refused")
    };
    assert!(matches!(load(b"junk"), UpstreamTlsError::NoCertificate(_)));
    assert!(matches!(
        load(b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"),
        UpstreamTlsError::NotPem { .. }
    ));
    let junk = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(load(junk), UpstreamTlsError::Malformed { position: 1, .. }));
    assert!(matches!(load(&vec![b'#'; (4 << 20) + 1]), UpstreamTlsError::TooLarge(_)));
    let absent = UpstreamTlsConfig::load(&settings(Some(folder.path().join("absent")), "x"));
    assert!(matches!(absent, Err(UpstreamTlsError::Unreadable { .. })));
    let a_folder = UpstreamTlsConfig::load(&settings(Some(folder.path().to_owned()), "x"));
    assert!(matches!(a_folder, Err(UpstreamTlsError::Unreadable { .. })));
    let name = UpstreamTlsConfig::load(&settings(None, "not a name"));
    assert!(matches!(name, Err(UpstreamTlsError::ServerName(_))));
}
