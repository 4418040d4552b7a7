use std::path::Path;

use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore, ServerConnection, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::*;
use crate::proxy::certificates::making::{Authority, NOW, generate, put, rsa};
use crate::runtime::scratch::Scratch;

const LONG: Duration = Duration::from_secs(20);

struct House {
    ca: Authority,
    folder: tempfile::TempDir,
    slot: Arc<ArcSwap<Certificates>>,
    tickets: Tickets,
    settings: ListenerTls,
}

impl House {
    fn new() -> Self {
        let (ca, folder) = (Authority::new("root"), tempfile::tempdir().expect("folder"));
        put(folder.path(), "default", &ca.issue(&["default.example", "127.0.0.1"]));
        put(folder.path(), "exact", &ca.issue(&["app.example"]));
        put(folder.path(), "wild", &ca.issue(&["*.apps.example"]));
        put(folder.path(), "rsa", &ca.issue_with(&["rsa.example"], 2020..2120, &rsa()));
        put(
            folder.path(),
            "p384",
            &ca.issue_with(&["p384.example"], 2020..2120, &generate(&rcgen::PKCS_ECDSA_P384_SHA384)),
        );
        put(folder.path(), "ed", &ca.issue_with(&["ed.example"], 2020..2120, &generate(&rcgen::PKCS_ED25519)));
        let slot = Arc::new(ArcSwap::from_pointee(load(folder.path())));
        let settings = ListenerTls { certificates: folder.path().to_owned(), minimum: TlsVersion::Tls12, http2: true };
        Self { ca, folder, slot, tickets: Tickets::new().expect("randomness"), settings }
    }

    fn config(&self) -> Arc<ServerConfig> {
        server_config(&self.settings, Arc::clone(&self.slot), &self.tickets).expect("config")
    }

    fn client(&self, versions: &[&'static SupportedProtocolVersion], alpn: &[&[u8]]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.pem.as_bytes()).expect("PEM")).expect("root");
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        config
    }
}

fn load(folder: &Path) -> Certificates {
    let (certificates, problems) = Certificates::load(folder, NOW);
    assert_eq!(problems, []);
    certificates.expect("certificates")
}

const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
const ONLY12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
const ONLY13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// A TCP connection: the client's and the server's end.
async fn connection() -> (TcpStream, Socket) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("address");
    let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.expect("connected"), Socket::Tcp(server.expect("accepted").0))
}

/// A whole handshake and one echo; the first certificate the client was shown.
async fn handshake(
    server: Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    name: &str,
) -> (Result<Accepted, HandshakeError>, io::Result<Option<Vec<u8>>>) {
    let (near, far) = connection().await;
    let name = ServerName::try_from(name.to_owned()).expect("name");
    let connector = TlsConnector::from(Arc::clone(client));
    let client = async {
        let mut stream = connector.connect(name, near).await?;
        stream.write_all(b"x").await?;
        let mut echo = [0];
        stream.read_exact(&mut echo).await?;
        Ok(stream.get_ref().1.peer_certificates().and_then(|c| c.first()).map(|c| c.to_vec()))
    };
    let server = async {
        let mut accepted = accept(far, server, LONG).await?;
        let mut byte = [0];
        if accepted.stream.read_exact(&mut byte).await.is_ok() {
            let _ = accepted.stream.write_all(&byte).await;
            let _ = accepted.stream.flush().await;
        }
        Ok(accepted)
    };
    tokio::join!(server, client)
}

#[tokio::test]
async fn the_certificate_follows_the_name_over_both_versions() {
    let house = House::new();
    let folder = house.folder.path().to_owned();
    let config = house.config();
    for versions in [ONLY12, ONLY13] {
        for (name, sni, file) in [
            ("app.example", Some("app.example"), Some("exact")),
            ("a.apps.example", Some("a.apps.example"), Some("wild")),
            ("rsa.example", Some("rsa.example"), Some("rsa")),
            ("p384.example", Some("p384.example"), Some("p384")),
            ("ed.example", Some("ed.example"), Some("ed")),
            // No name is sent for an address.
            ("127.0.0.1", None, Some("default")),
            // The default's certificate is shown, and the client does not like it.
            ("other.example", Some("other.example"), None),
        ] {
            let client = Arc::new(house.client(versions, &[b"h2", b"http/1.1"]));
            let (server, client) = handshake(Arc::clone(&config), &client, name).await;
            let Some(file) = file else {
                assert!(client.is_err(), "{name}");
                assert_eq!(server.expect_err("refused").cause, HandshakeCause::Alert, "{name}");
                continue;
            };
            let shown = client.expect(name).expect("a certificate");
            let expected = CertificateDer::from_pem_file(folder.join(format!("{file}.crt"))).expect("PEM");
            assert_eq!(shown, expected.to_vec(), "{name}");
            let accepted = server.expect(name);
            let agreed = agreed(&accepted);
            assert_eq!(agreed.server_name(), sni, "RFC 6066 §3");
            assert!(accepted.is_h2 && agreed.handshake_kind() != Some(HandshakeKind::Resumed));
            assert_eq!(agreed.protocol_version(), Some(versions[0].version));
            let suite = agreed.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).expect("a suite");
            let prefix = if versions == ONLY12 { "TLS_ECDHE_" } else { "TLS13_" };
            assert!(suite.starts_with(prefix), "{suite}");
        }
    }
}

#[tokio::test]
async fn alpn_agrees_on_what_is_offered() {
    let mut house = House::new();
    for (http2, offered, agreed) in [
        (true, &[b"h2".as_slice(), b"http/1.1"][..], Ok(true)),
        (true, &[b"http/1.1".as_slice(), b"h2"], Ok(true)),
        (true, &[b"http/1.1".as_slice()], Ok(false)),
        (true, &[], Ok(false)),
        (false, &[b"h2".as_slice(), b"http/1.1"], Ok(false)),
        (false, &[b"h2".as_slice()], Err(HandshakeCause::Alpn)),
        (true, &[b"spdy/1".as_slice()], Err(HandshakeCause::Alpn)),
    ] {
        house.settings.http2 = http2;
        let client = Arc::new(house.client(BOTH, offered));
        let (server, _) = handshake(house.config(), &client, "app.example").await;
        assert_eq!(server.map(|a| a.is_h2).map_err(|e| e.cause), agreed, "{http2} {offered:?}");
    }
}

#[tokio::test]
async fn only_tls_1_3_is_spoken_where_that_is_the_minimum() {
    let mut house = House::new();
    house.settings.minimum = TlsVersion::Tls13;
    let (server, client) = handshake(house.config(), &Arc::new(house.client(ONLY12, &[])), "app.example").await;
    assert_eq!(server.expect_err("refused").cause, HandshakeCause::Version);
    assert!(client.is_err());
    let (server, _) = handshake(house.config(), &Arc::new(house.client(BOTH, &[])), "app.example").await;
    assert_eq!(agreed(&server.expect("accepted")).protocol_version(), Some(ProtocolVersion::TLSv1_3));
}

#[tokio::test]
async fn tickets_resume_sessions_also_across_a_reload_but_not_without_the_keys() {
    let house = House::new();
    for versions in [ONLY12, ONLY13] {
        let mut client = house.client(versions, &[]);
        client.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(8)));
        let client = Arc::new(client);
        let is_resumed = async |config: Arc<ServerConfig>| {
            let (server, client) = handshake(config, &client, "app.example").await;
            client.expect("echo");
            agreed(&server.expect("accepted")).handshake_kind() == Some(HandshakeKind::Resumed)
        };
        assert!(!is_resumed(house.config()).await);
        assert!(is_resumed(house.config()).await, "a new configuration with the same keys: a reload");
        let stranger = House { tickets: Tickets::new().expect("randomness"), ..House::new() };
        let foreign = server_config(&house.settings, Arc::clone(&house.slot), &stranger.tickets).expect("config");
        assert!(!is_resumed(foreign).await, "other keys");
    }
}

#[tokio::test]
async fn a_swap_of_certificates_needs_no_new_configuration() {
    let house = House::new();
    let config = house.config();
    let client = Arc::new({
        let mut client = house.client(BOTH, &[]);
        client.resumption = Resumption::disabled();
        client
    });
    let (_, before) = handshake(Arc::clone(&config), &client, "app.example").await;
    put(house.folder.path(), "exact", &house.ca.issue(&["app.example"]));
    house.slot.store(Arc::new(load(house.folder.path())));
    let (_, after) = handshake(Arc::clone(&config), &client, "app.example").await;
    assert_ne!(before.expect("before"), after.expect("after"));
}

#[tokio::test]
async fn what_is_copied_slowly_comes_whole() {
    const LEN: usize = 100_000;
    let house = House::new();
    for versions in [ONLY12, ONLY13] {
        let (near, far) = connection().await;
        let connector = TlsConnector::from(Arc::new(house.client(versions, &[])));
        let client = async {
            let name = ServerName::try_from("app.example").expect("name");
            let mut stream = connector.connect(name, near).await.expect("handshake");
            let mut got = vec![0; LEN];
            stream.read_exact(&mut got).await.expect("all of it");
            got
        };
        let server = async {
            let mut stream = accept(far, house.config(), LONG).await.expect("handshake").stream;
            // From places in their pages before, at and behind those from where copies to a record are slow: the middle of a page
            // is where it begins.
            let mut scratch = Scratch::new(LEN + 4096);
            for (n, byte) in scratch.iter_mut().enumerate() {
                *byte = (n / 7) as u8;
            }
            let bytes = &scratch[2048 - 40..][..LEN];
            for piece in bytes.chunks(4096 + 3) {
                stream.write_all(piece).await.expect("written");
            }
            stream.flush().await.expect("flushed");
            bytes.to_vec()
        };
        let (got, sent) = tokio::join!(client, server);
        assert!(got == sent);
    }
}

/// What client and server have agreed on.
fn agreed(accepted: &Accepted) -> &ServerConnection {
    match &accepted.stream {
        Stream::Tls(stream) => match &**stream {
            TlsStream::Server(stream) => stream.get_ref().1,
            TlsStream::Client(_) => panic!("we are the server"),
        },
        Stream::Plain(_) => panic!("it is under TLS"),
    }
}

#[tokio::test]
async fn unix_sockets_speak_tls_too() {
    let house = House::new();
    let (near, far) = UnixStream::pair().expect("pair");
    let connector = TlsConnector::from(Arc::new(house.client(BOTH, &[])));
    let name = ServerName::try_from("app.example").expect("name");
    let (client, server) = tokio::join!(connector.connect(name, near), accept(Socket::Unix(far), house.config(), LONG));
    client.expect("client");
    assert_eq!(agreed(&server.expect("server")).server_name(), Some("app.example"));
}

#[tokio::test]
async fn what_is_no_handshake_is_named() {
    let house = House::new();
    let config = house.config();
    let cause = async |bytes: &[u8], closes: bool, timeout: Duration| {
        let (mut near, far) = connection().await;
        near.write_all(bytes).await.expect("written");
        if closes {
            near.shutdown().await.expect("shut");
        }
        let error = accept(far, Arc::clone(&config), timeout).await.expect_err("no handshake");
        assert!(error.to_string().ends_with(error.cause.as_str()));
        error.cause
    };
    let short = Duration::from_millis(50);
    assert_eq!(cause(b"", true, LONG).await, HandshakeCause::Closed);
    assert_eq!(cause(b"\x16\x03\x01", true, LONG).await, HandshakeCause::Closed);
    assert_eq!(cause(b"", false, short).await, HandshakeCause::TimedOut);
    assert_eq!(cause(b"\x16\x03\x01\x02\x00\x01", false, short).await, HandshakeCause::TimedOut);
    assert_eq!(cause(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", false, LONG).await, HandshakeCause::NotTls);
    assert_eq!(cause(b"\x16\x03\x01\x00\x05\x05\x00\x00\x01\x00", false, LONG).await, HandshakeCause::Malformed);
}

#[tokio::test]
async fn a_client_that_does_not_trust_us_is_an_alert() {
    let house = House::new();
    let stranger = House::new();
    let (server, client) = handshake(house.config(), &Arc::new(stranger.client(BOTH, &[])), "app.example").await;
    assert!(client.is_err());
    assert_eq!(server.expect_err("refused").cause, HandshakeCause::Alert);
}

#[test]
fn causes_have_names_of_their_own() {
    let names: std::collections::BTreeSet<_> = HandshakeCause::ALL.iter().map(|c| c.as_str()).collect();
    assert_eq!(names.len(), HandshakeCause::ALL.len());
}
