//! Which backend a request reaches, by which way, and what it is told of who asked.

use crate::harness::websocket::upgrade_bytes;
use crate::harness::{Authority, Client, Folder, Origin, Proxy, Site, Socket, within};

#[test]
fn the_backend_learns_who_asked_and_only_trusted_peers_may_say_otherwise() {
    within(60, async {
        let origin = Origin::start("a");
        let trusting = "[[listener]]\nname = \"trusting\"\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\ntrusted = [\"127.0.0.0/8\"]";
        let proxy = Proxy::start(&Site::new(&[&origin]).more(trusting).text()).await;
        let claims = [
            ("Host", "Shiny.Example.org:8080"),
            ("X-Forwarded-For", "203.0.113.7, 127.0.0.9"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "public.example.org"),
            ("X-Forwarded-Port", "443"),
            ("Forwarded", "for=203.0.113.7;proto=https;host=public.example.org"),
            ("X-Request-Id", "from-the-client"),
        ];
        let answer = proxy.get_as("/stranger", &claims).await;
        let seen = origin.last("/stranger").fields;
        assert_eq!(seen.get("host"), Some("Shiny.Example.org:8080"), "as the client gave it");
        assert_eq!(seen.get("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(seen.get("x-forwarded-proto"), Some("http"));
        assert_eq!(seen.get("x-forwarded-host"), Some("Shiny.Example.org:8080"));
        assert_eq!(seen.get("x-forwarded-port"), proxy.web().rsplit(':').next(), "where it came to");
        let forwarded = seen.get("forwarded").unwrap();
        assert!(
            forwarded.contains("for=127.0.0.1")
                && forwarded.contains("proto=http")
                && !forwarded.contains("203.0.113.7"),
            "{forwarded}"
        );
        let id = seen.get("x-request-id").unwrap();
        assert_ne!(id, "from-the-client");
        assert_eq!(answer.fields.get("x-request-id"), Some(id), "the client learns the name of its request");

        let mut client = Client::tcp(proxy.listener("trusting")).await;
        let answer = client.request("GET", "/peer", &claims, b"").await;
        let seen = origin.last("/peer").fields;
        assert_eq!(seen.get("x-forwarded-for"), Some("203.0.113.7, 127.0.0.9, 127.0.0.1"));
        assert_eq!(seen.get("x-forwarded-proto"), Some("https"));
        assert_eq!(seen.get("x-forwarded-host"), Some("public.example.org"));
        assert!(
            seen.get("forwarded").unwrap().starts_with("for=203.0.113.7;proto=https;host=public.example.org"),
            "{seen:?}"
        );
        assert_eq!(
            (seen.get("x-request-id"), answer.fields.get("x-request-id")),
            (Some("from-the-client"), Some("from-the-client"))
        );
        // Two requests never share a name.
        let names =
            [client.get("/1").await, client.get("/2").await].map(|r| r.fields.get("x-request-id").unwrap().to_owned());
        assert_ne!(names[0], names[1]);
    });
}

#[test]
fn routes_choose_by_host_and_longest_path() {
    within(60, async {
        let names = ["any", "exact", "wild", "deep"];
        let origins = names.map(Origin::start);
        let pools: String = origins
            .iter()
            .map(|o| format!("[[pool]]\nname = \"{0}\"\nprobe.enabled = false\nbackend = [{{ key = \"{0}\", address = \"{1}\" }}]\n", o.name, o.address))
            .collect();
        let routes = "[[route]]\npool = \"any\"\n[[route]]\nhost = \"one.example.org\"\npool = \"exact\"\n\
                      [[route]]\nhost = \"*.example.org\"\npool = \"wild\"\n\
                      [[route]]\nhost = \"one.example.org\"\npath = \"/deep\"\npool = \"deep\"\n";
        let listener = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n";
        let proxy = Proxy::start(&format!("{listener}{pools}{routes}")).await;
        for (host, target, name) in [
            ("elsewhere.net", "/", "any"),
            ("one.example.org", "/", "exact"),
            ("ONE.Example.Org:8080", "/deepest", "exact"),
            ("one.example.org.", "/deep", "deep"),
            ("one.example.org", "/deep/er?x", "deep"),
            ("one.example.org", "/dee", "exact"),
            ("two.example.org", "/deep", "wild"),
            ("a.b.example.org", "/", "wild"),
            ("example.org", "/", "any"),
        ] {
            assert_eq!(proxy.get_as(target, &[("Host", host)]).await.origin(), name, "{host}{target}");
        }
    });
}

#[test]
fn backends_on_unix_sockets_and_under_tls_are_reached_and_verified() {
    within(60, async {
        let (ca, stranger, folder) = (Authority::new(), Authority::new(), Folder::new());
        folder.write("ca.pem", ca.pem());
        let unix = Origin::unix("unix", folder.path("app.sock"));
        let tls = Origin::tls("tls", &ca.pair(&["app.internal"]));
        let other_name = Origin::tls("other", &ca.pair(&["other.internal"]));
        let other_ca = Origin::tls("strange", &stranger.pair(&["app.internal"]));
        let pools: String = [&unix, &tls, &other_name, &other_ca]
            .iter()
            .map(|o| {
                let verified = match o.name.as_str() {
                    "unix" => "",
                    _ => "tls = { ca_file = \"ca.pem\", server_name = \"app.internal\" }\n",
                };
                format!(
                    "[[pool]]\nname = \"{0}\"\nprobe.enabled = false\n{verified}backend = [{{ key = \"{0}\", address = \"{1}\" }}]\n\
                     [[route]]\npath = \"/{0}\"\npool = \"{0}\"\n",
                    o.name, o.address
                )
            })
            .collect();
        let listener = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n";
        let proxy = Proxy::start_in(folder, &format!("{listener}{pools}")).await;
        assert_eq!(proxy.get("/unix").await.origin(), "unix");
        assert_eq!(proxy.get("/tls").await.origin(), "tls");
        let mut socket = Socket::open(proxy.connect().await, "/unix/ws", &[]).await;
        socket.echo("over a unix socket").await;
        for name in ["other", "strange"] {
            let answer = proxy.get(&format!("/{name}")).await;
            assert_eq!((answer.status, &answer.json()["error"]), (502, &"upstream_tls".into()), "{name}");
            let mut client = proxy.connect().await;
            client.send(upgrade_bytes(&format!("/{name}/ws"), &[])).await;
            assert_eq!(client.response("GET").await.status, 502, "{name}");
        }
        assert!(other_name.seen().is_empty() && other_ca.seen().is_empty());
    });
}

#[test]
fn connections_to_backends_are_reused() {
    within(60, async {
        let origin = Origin::start("a");
        let proxy = Proxy::start(&Site::new(&[&origin]).probe("enabled = false").text()).await;
        for _ in 0..20 {
            proxy.get("/").await;
        }
        assert!(origin.connections() <= 2, "{} connections for 20 requests", origin.connections());
        assert_eq!(origin.seen().len(), 20);
    });
}
