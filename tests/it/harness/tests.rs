//! The harness itself: client and origin face to face, without a proxy between them.

use super::message::Framing;
use super::{Authority, Client, Frame, Origin, Socket, get, within};

#[test]
fn client_and_origin_understand_each_other() {
    within(30, async {
        let origin = Origin::scripted("o", async |x| match x.request.path() {
            "/chunks" => {
                x.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
                x.chunk(b"one").await?;
                x.send("0\r\nX-End: yes\r\n\r\n").await
            }
            "/close" => {
                x.close();
                x.send("HTTP/1.1 200 Fine\r\n\r\nuntil the end").await
            }
            _ => x.serve().await,
        });
        let mut client = Client::tcp(&origin.address).await;
        let upload = client.request("POST", "/up?x", &[("X-A", "1")], b"body").await;
        assert_eq!((upload.status, upload.origin(), upload.framing("GET")), (200, "o", Framing::Length(1)));
        let seen = origin.last("/up");
        assert_eq!((seen.target.as_str(), seen.fields.get("x-a"), &*seen.body), ("/up?x", Some("1"), &b"body"[..]));
        client
            .send("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nX-T: 1\r\n\r\n")
            .await;
        assert_eq!(client.response("POST").await.status, 200);
        let seen = origin.last("/c");
        assert_eq!((&*seen.body, seen.trailers.get("x-t")), (&b"abc"[..], Some("1")));
        let chunks = client.get("/chunks").await;
        assert_eq!((chunks.text().as_str(), chunks.trailers.get("x-end")), ("one", Some("yes")));
        let close = client.get("/close").await;
        assert_eq!((close.reason.as_str(), close.text().as_str()), ("Fine", "until the end"));
        assert!(client.ends().await);
        assert_eq!(get(&origin.address, "/__ping__").await.text(), "well");
        origin.set_sick(true);
        assert_eq!(get(&origin.address, "/__ping__").await.status, 503);
        assert_eq!((origin.pings(), origin.seen().len()), (2, 4));
    });
}

#[test]
fn an_origin_echoes_websockets_and_dies_at_once() {
    within(30, async {
        let ca = Authority::new();
        let tls = Origin::tls("t", &ca.pair(&["localhost"]));
        let mut socket = Socket::open(Client::tls(&tls.address, &ca.trust("localhost")).await, "/ws", &[]).await;
        socket.echo("under TLS").await;
        let mut origin = Origin::start("o");
        let mut socket = Socket::tcp(&origin.address, &[]).await;
        socket.echo(&"x".repeat(100_000)).await;
        socket.send(&Frame::close(1000)).await;
        assert_eq!(socket.next().await.and_then(|f| f.close_code()), Some(1000));
        assert!(socket.client.ends().await);
        let mut socket = Socket::tcp(&origin.address, &[]).await;
        socket.echo("x").await;
        origin.kill();
        assert_eq!(socket.next().await, None);
        assert!(Client::try_tcp(&origin.address).await.is_err());
        let again = Origin::at("o", &origin.address);
        assert_eq!(get(&again.address, "/").await.origin(), "o");
    });
}
