//! R's clients without an API key: a token that a user claims, and requests signed with its key.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::Digest;

use crate::generations::bundle;
use crate::harness::{
    Authority, Client, Folder, Node, Postgres, Response, eventually, get, get_as, run, script, tool, tools, within,
};
use crate::packages::{base, proxy};

/// A token and its key, as R makes them.
pub struct Token {
    pub name: String,
    folder: Folder,
}

impl Token {
    pub async fn new(name: &str) -> Self {
        let folder = Folder::new();
        let key = folder.path("key.pem");
        run(&tool("openssl"), &["genrsa", "-out", key.to_str().unwrap(), "2048"], "").await.ok();
        Self { name: name.to_owned(), folder }
    }

    /// What is posted to `/tokens`.
    pub async fn body(&self) -> String {
        let key = self.folder.path("key.pem").to_str().unwrap().to_owned();
        let script = "openssl rsa -in \"$1\" -pubout -outform DER | openssl base64 -A";
        let public = run("sh".as_ref(), &["-c", script, "sh", &key], "").await.ok().stdout;
        format!("{{\"token\": \"{}\", \"public_key\": \"{public}\", \"user_id\": 0}}", self.name)
    }

    /// What a request is sent with, of now.
    pub async fn sign(&self, method: &str, path: &str, body: &[u8]) -> Vec<(&'static str, String)> {
        self.sign_at(SystemTime::now(), method, path, body).await
    }

    pub async fn sign_at(&self, at: SystemTime, method: &str, path: &str, body: &[u8]) -> Vec<(&'static str, String)> {
        let key = self.folder.path("key.pem").to_str().unwrap().to_owned();
        let (date, checksum) = (httpdate::fmt_http_date(at), STANDARD.encode(md5::Md5::digest(body)));
        let message = format!("{method}\n{path}\n{date}\n{checksum}");
        let script = "openssl dgst -sha1 -sign \"$1\" | openssl base64 -A";
        let signature = run("sh".as_ref(), &["-c", script, "sh", &key], &message).await.ok().stdout;
        vec![
            ("Date", date),
            ("X-Auth-Token", self.name.clone()),
            ("X-Auth-Signature", signature),
            ("X-Content-Checksum", checksum),
        ]
    }
}

/// One request with these fields on a connection of its own.
pub async fn ask(address: &str, method: &str, target: &str, fields: &[(&str, String)], body: &[u8]) -> Response {
    let mut all: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    if method != "GET" {
        all.push(("Content-Type", "application/json"));
    }
    Client::tcp(address).await.request(method, target, &all, body).await
}

pub fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

/// A user claims a token as a browser does.
pub async fn claim(address: &str, token: &str, authorization: &str) -> Response {
    let path = format!("/connect/claim/{token}");
    let shown = get_as(address, &path, &[("authorization", authorization)]).await;
    let text = shown.text();
    let Some((_, rest)) = text.split_once("name=\"seal\" value=\"") else { return shown };
    let body = format!("seal={}", rest.split('"').next().unwrap());
    let fields = [("authorization", authorization), ("content-type", "application/x-www-form-urlencoded")];
    Client::tcp(address).await.request("POST", &path, &fields, body.as_bytes()).await
}

const NAME: &str = "Tce50c63eb5734a937b12c3f1783829";

#[test]
fn what_a_user_claimed_signs_for_them_and_nothing_else_does() {
    within(120, async {
        let database = Postgres::start();
        let a = Node::start("a", &format!("[database]\nurl = \"{}\"\n", database.url())).await;
        let b = a.beside("b").await;
        let own = Folder::new();
        let file = |name: &str, text: &str| own.write(name, text).to_str().unwrap().to_owned();
        let password = file("password", "ann's secret");
        a.command(&["user", "create", "ann", "--role", "publisher", "--password-file", &password]).await;
        let ann = basic("ann", "ann's secret");
        let (program, weak) = (
            a.command(&["key", "create", "--admin"]).await,
            a.command(&["key", "create", "--user", "ann", "--scope", "read"]).await,
        );
        let token = Token::new(NAME).await;
        let body = token.body().await;
        let nobody = [("X-Auth-Token", "anonymous-access".to_owned())];

        // It is made once, whatever else is sent by its name.
        let made = ask(&a.address, "POST", "/__api__/tokens", &nobody, body.as_bytes()).await;
        assert_eq!(made.status, 200, "{}", made.text());
        assert_eq!(made.json()["token_claim_url"], format!("http://localhost/connect/claim/{NAME}"));
        let other = Token::new(NAME).await;
        let stolen = ask(&b.address, "POST", "/__api__/tokens", &nobody, other.body().await.as_bytes()).await;
        assert_eq!(stolen.status, 409);
        for wrong in ["{}", r#"{"token": "T0", "public_key": ""}"#, &body.replace("MII", "MIJ"), &"x".repeat(10_000)] {
            let refused = ask(&a.address, "POST", "/__api__/tokens", &nobody, wrong.as_bytes()).await;
            assert!(matches!(refused.status, 400 | 413), "{wrong}: {}", refused.text());
        }

        // Until somebody claims it, it is nobody's; R from before 2024 waits for a 500.
        let who = "/__api__/users/current";
        let mut signed = token.sign("GET", who, b"").await;
        let refused = ask(&b.address, "GET", who, &signed, b"").await;
        assert!(refused.status == 401 && refused.text().contains("was not claimed yet"), "{}", refused.text());
        signed.push(("User-Agent", "rsconnect/0.8.29".to_owned()));
        assert_eq!(ask(&b.address, "GET", who, &signed, b"").await.status, 500);

        // Who may claim it, and how.
        let path = format!("/connect/claim/{NAME}");
        let refused = get(&a.address, &path).await;
        assert!(refused.status == 401 && refused.fields.get("www-authenticate").is_some());
        for credential in [basic("", &program), basic("", &weak), basic("ann", "not hers")] {
            assert_eq!(claim(&a.address, NAME, &credential).await.status, 401);
        }
        let shown = get_as(&a.address, &path, &[("authorization", &ann)]).await;
        let policy = shown.fields.get("content-security-policy").unwrap();
        assert!(policy.contains("sandbox allow-forms") && policy.contains("frame-ancestors 'none'"), "{policy}");
        for destination in ["empty", "iframe"] {
            let fields = [("authorization", &*ann), ("sec-fetch-dest", destination)];
            assert_eq!(get_as(&a.address, &path, &fields).await.status, 403, "{destination}");
        }
        let forged = [("authorization", ann.clone())];
        for body in ["", "seal=", "seal=AAAA"] {
            assert_eq!(ask(&a.address, "POST", &path, &forged, body.as_bytes()).await.status, 403);
        }
        assert_eq!(claim(&a.address, "T00000000000000000000000000000000", &ann).await.status, 404);
        let done = claim(&a.address, NAME, &ann).await;
        assert!(done.status == 200 && done.text().contains("R publishes as ann"), "{}", done.text());
        assert_eq!(claim(&b.address, NAME, &ann).await.status, 404, "nobody claims it twice");

        // Any node knows her by it, as often as she asks; nobody makes keys by it.
        for node in [&a, &b, &b] {
            let seen = ask(&node.address, "GET", &format!("{who}?x=1"), &signed, b"").await;
            assert_eq!((seen.status, &seen.json()["username"]), (200, &"ann".into()), "{}", seen.text());
        }
        let keys = token.sign("GET", "/__api__/v1/keys", b"").await;
        assert_eq!(ask(&a.address, "GET", "/__api__/v1/keys", &keys, b"").await.status, 401);

        // What changes something is taken once, by whichever node.
        let (create, wish) = ("/__api__/applications", br#"{"name": "site"}"#);
        let signed = token.sign("POST", create, wish).await;
        let made = ask(&a.address, "POST", create, &signed, wish).await;
        assert_eq!((made.status, &made.json()["owner_username"]), (200, &"ann".into()), "{}", made.text());
        for node in [&a, &b] {
            let again = ask(&node.address, "POST", create, &signed, wish).await;
            assert!(again.status == 401 && again.text().contains("was taken before"), "{}", again.text());
        }

        // Nothing but what was signed.
        let now = SystemTime::now();
        let (old, early) = (now - Duration::from_secs(320), now + Duration::from_secs(320));
        let site = "/__api__/v1/content";
        let good = token.sign("POST", site, b"{\"name\": \"x\"}").await;
        let bad_token: Vec<_> = good.iter().map(|(n, v)| (*n, v.replace(NAME, "T0123456789abcdef"))).collect();
        let without: Vec<_> = good.iter().filter(|(name, _)| *name != "X-Auth-Signature").cloned().collect();
        let body = b"{\"name\": \"x\"}".as_slice();
        for (what, fields, method, target, body) in [
            ("another key", other.sign("POST", site, body).await, "POST", site, body),
            ("another path", good.clone(), "POST", create, body),
            ("another method", good.clone(), "GET", site, b"".as_slice()),
            ("another body", good.clone(), "POST", site, b"{\"name\": \"y\"}"),
            ("too old", token.sign_at(old, "POST", site, body).await, "POST", site, body),
            ("too early", token.sign_at(early, "POST", site, body).await, "POST", site, body),
            ("no such token", bad_token, "POST", site, body),
            ("no signature", without, "POST", site, body),
        ] {
            let refused = ask(&a.address, method, target, &fields, body).await;
            assert_eq!((refused.status, &refused.json()["code"]), (401, &30.into()), "{what}: {}", refused.text());
        }
        let form: Vec<_> =
            [("Content-Type", "multipart/form-data; boundary=x".to_owned())].into_iter().chain(good.clone()).collect();
        assert_eq!(ask(&a.address, "POST", site, &form, body).await.status, 400);
        assert_eq!(ask(&a.address, "POST", site, &good, body).await.status, 200, "those did not use it up");

        // The path as the client sees it, also below a prefix that a trusted proxy takes away.
        for (name, value) in
            [("X-RSC-Request", "https://x.example/rsc/__api__/users/current?a=1"), ("X-Forwarded-Prefix", "/rsc")]
        {
            let mut signed = token.sign("GET", &format!("/rsc{who}"), b"").await;
            assert_eq!(ask(&a.address, "GET", who, &signed, b"").await.status, 401);
            signed.extend([(name, value.to_owned()), ("X-Forwarded-For", "10.1.2.3".to_owned())]);
            assert_eq!(ask(&a.address, "GET", who, &signed, b"").await.status, 200, "{name}");
        }

        // What it did is hers in the log; with her it ends.
        let audit = a.command(&["audit"]).await;
        assert!(audit.contains("claim_token") && audit.contains("ann (token)"), "{audit}");
        a.command(&["user", "lock", "ann"]).await;
        for node in [&a, &b] {
            eventually("her end", async || {
                let signed = token.sign("GET", who, b"").await;
                (ask(&node.address, "GET", who, &signed, b"").await.status == 401).then_some(())
            })
            .await;
        }
    });
}

#[test]
fn tokens_are_bounded_and_one_ends_with_the_key_it_was_claimed_by() {
    within(60, async {
        let a = Node::start("a", "").await;
        let ca = Authority::new();
        let proxy = proxy(&[&a], &ca).await;
        a.command(&["user", "create", "ann", "--role", "publisher"]).await;
        let short = a.command(&["key", "create", "--user", "ann", "--scope", "publish", "--expires", "4s"]).await;
        let token = Token::new(NAME).await;
        let body = token.body().await;
        let pem = proxy.folder.path("ca.pem").to_str().unwrap().to_owned();
        let url = format!("{}/__api__/tokens", base(&proxy));
        let told = ["-sS", "--cacert", &pem, "-H", "Content-Type: application/json", "-d", &body, &url];
        let made = run(&tool("curl"), &told, "").await.ok();
        assert_eq!(made.json()["token_claim_url"], format!("{}/connect/claim/{NAME}", base(&proxy)));
        assert_eq!(claim(&a.address, NAME, &basic("", &short)).await.status, 200);
        let who = "/__api__/users/current";
        eventually("its end", async || {
            let signed = token.sign("GET", who, b"").await;
            (ask(&a.address, "GET", who, &signed, b"").await.status == 401).then_some(())
        })
        .await;
        let mut statuses = Vec::new();
        for n in 0..40 {
            let body = body.replace(NAME, &format!("T{n:032x}"));
            statuses.push(ask(&a.address, "POST", "/__api__/tokens", &[], body.as_bytes()).await.status);
        }
        let made = statuses.iter().filter(|status| **status == 200).count();
        assert!(made == 29 && statuses[39] == 429, "{statuses:?}");
    });
}

#[test]
fn a_person_claims_a_token_in_a_browser_and_no_script_of_the_same_server_does() {
    within(120, async {
        let a = Node::start("a", "").await;
        let ca = Authority::new();
        let proxy = proxy(&[&a], &ca).await;
        let own = Folder::new();
        let password = own.write("password", "secret of ann").to_str().unwrap().to_owned();
        a.command(&["user", "create", "ann", "--role", "publisher", "--password-file", &password]).await;
        let token = Token::new(NAME).await;
        assert_eq!(ask(&a.address, "POST", "/__api__/tokens", &[], token.body().await.as_bytes()).await.status, 200);
        let (url, script, chromium) = (base(&proxy), script("claim.mjs"), tool("chromium"));
        let address = format!("{url}/connect/claim/{NAME}");
        let told = [&script, chromium.to_str().unwrap(), own.root().to_str().unwrap(), &url, &address];
        let told = run(&tools::node(), &[&told[..], &["ann", "secret of ann"]].concat(), "").await.ok().json();
        assert_eq!(told["fetched"], serde_json::json!({ "status": 403, "sealed": false }), "{told}");
        assert_eq!((&told["read"], &told["framed"]), (&"SecurityError".into(), &"nothing".into()), "{told}");
        assert_eq!((&told["asked"], &told["done"]), (&"Let R publish as ann?".into(), &"R publishes as ann".into()));
        let signed = token.sign("GET", "/__api__/users/current", b"").await;
        assert_eq!(ask(&a.address, "GET", "/__api__/users/current", &signed, b"").await.status, 200);
    });
}

#[test]
fn a_bundle_that_is_not_the_one_that_was_signed_is_not_kept() {
    within(60, async {
        let a = Node::start("a", "").await;
        let own = Folder::new();
        let password = own.write("password", "secret of ann").to_str().unwrap().to_owned();
        a.command(&["user", "create", "ann", "--role", "publisher", "--password-file", &password]).await;
        let token = Token::new(NAME).await;
        assert_eq!(ask(&a.address, "POST", "/__api__/tokens", &[], token.body().await.as_bytes()).await.status, 200);
        assert_eq!(claim(&a.address, NAME, &basic("ann", "secret of ann")).await.status, 200);
        let (create, wish) = ("/__api__/applications", br#"{"name": "site"}"#);
        let signed = token.sign("POST", create, wish).await;
        let made = ask(&a.address, "POST", create, &signed, wish).await.json();
        let upload = format!("/__api__/applications/{}/upload", made["id"]);
        // Small ones are refused before anybody looks at them, large ones at their end.
        for size in [240, 1 << 20] {
            // What cannot be made shorter.
            let noise = |seed: u64| {
                let digest = |n: u64| STANDARD.encode(md5::Md5::digest((n << 1 | seed).to_le_bytes()));
                (0..size / 24).map(digest).collect::<String>()
            };
            let (one, other) = (bundle(&noise(0)), bundle(&noise(1)));
            let signed = token.sign("POST", &upload, &one).await;
            let refused = ask(&a.address, "POST", &upload, &signed, &other).await;
            assert!(refused.text().contains("not what was signed"), "{size}: {} {}", refused.status, refused.text());
            let signed = token.sign("POST", &upload, &other).await;
            assert_eq!(ask(&a.address, "POST", &upload, &signed, &other).await.status, 200, "{size}");
        }
        let list = format!("/__api__/v1/content/{}/bundles", made["guid"].as_str().unwrap());
        let signed = token.sign("GET", &list, b"").await;
        let kept = ask(&a.address, "GET", &list, &signed, b"").await.json();
        assert_eq!(kept.as_array().unwrap().len(), 2, "{kept}");
    });
}
