//! Pages: people who log in, what keeps pages from content's scripts, who sees what, and where content is.

use serde_json::{Value, json};

use crate::content::{Publisher, two_nodes};
use crate::harness::tools::{self, client};
use crate::harness::{Authority, Client, Folder, Node, Postgres, Response, eventually, run, script, tool, within};
use crate::packages::{base, proxy};

type Fields<'a> = &'a [(&'a str, &'a str)];

/// A browser's cookies, at one node after the other.
#[derive(Clone, Default)]
pub struct Jar(pub String);

impl Jar {
    pub async fn get(&self, node: &Node, path: &str, more: Fields<'_>) -> Response {
        self.ask(node, "GET", path, more, "").await
    }

    pub async fn post(&self, node: &Node, path: &str, more: Fields<'_>, form: &str) -> Response {
        let fields = [&[("content-type", "application/x-www-form-urlencoded")], more].concat();
        self.ask(node, "POST", path, &fields, form).await
    }

    pub async fn ask(&self, node: &Node, method: &str, path: &str, more: Fields<'_>, body: &str) -> Response {
        let mut fields = vec![("accept", "text/html")];
        if !self.0.is_empty() {
            fields.push(("cookie", &self.0));
        }
        fields.extend(more);
        if method == "POST" && body.is_empty() {
            fields.push(("content-length", "0"));
        }
        Client::tcp(&node.address).await.request(method, path, &fields, body.as_bytes()).await
    }

    /// Logs in; the answer to the form, and the cookie it sets.
    pub async fn log_in(node: &Node, name: &str, password: &str, next: &str, more: Fields<'_>) -> (Response, Self) {
        let next: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
        let form = Self::default().get(node, &format!("/connect/login?next={next}"), more).await;
        assert_eq!(form.status, 200, "{}", form.text());
        let jar = Self(cookie(&form, "bowline_login").unwrap());
        let next = value(&form, "next").replace("&amp;", "&");
        let sent = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([
                ("token", value(&form, "token").as_str()),
                ("username", name),
                ("password", password),
                ("next", &next),
            ])
            .finish();
        let answer = jar.post(node, "/connect/login", more, &sent).await;
        let own = Self(cookie(&answer, "bowline_session").unwrap_or_default());
        (answer, own)
    }

    /// What forms of this session send.
    pub async fn token(&self, node: &Node) -> String {
        value(&self.get(node, "/connect/account", &[]).await, "token")
    }

    pub async fn is_known(&self, node: &Node) -> bool {
        self.get(node, "/connect/", &[]).await.status == 200
    }
}

/// A cookie that an answer sets, as browsers send it back.
pub fn cookie(response: &Response, name: &str) -> Option<String> {
    let mut all = response.fields.all("set-cookie");
    let found = all.find_map(|line| line.split(';').next().filter(|pair| pair.starts_with(&format!("{name}="))));
    found.map(str::to_owned)
}

/// Of the first input of this name.
pub fn value(page: &Response, name: &str) -> String {
    let text = page.text();
    let at = text.find(&format!("name=\"{name}\" value=\"")).unwrap_or_else(|| panic!("no `{name}` in {text}"));
    text[at..].split("value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

/// Users ann (administrator), bob (publisher), cy (viewer), each with a key, by name.
pub async fn people(node: &Node) -> [String; 3] {
    let own = Folder::new();
    let mut keys = Vec::new();
    for (name, role) in [("ann", "administrator"), ("bob", "publisher"), ("cy", "viewer")] {
        let password = own.write(name, format!("secret of {name}")).to_str().unwrap().to_owned();
        node.command(&["user", "create", name, "--role", role, "--password-file", &password]).await;
        let scope = ["admin", "publish", "read"][keys.len()];
        keys.push(node.command(&["key", "create", "--user", name, "--name", "own", "--scope", scope]).await);
    }
    keys.try_into().unwrap()
}

/// The API, as who holds a key.
pub async fn api(node: &Node, key: &str, method: &str, path: &str, body: &Value) -> Response {
    let authorization = format!("Key {key}");
    let mut fields = vec![("authorization", authorization.as_str())];
    let text = if body.is_null() { String::new() } else { body.to_string() };
    if !text.is_empty() {
        fields.push(("content-type", "application/json"));
    } else if method != "GET" {
        fields.push(("content-length", "0"));
    }
    let path = format!("/__api__/v1{path}");
    Client::tcp(&node.address).await.request(method, &path, &fields, text.as_bytes()).await
}

async fn made(node: &Node, key: &str, path: &str, body: Value) -> Value {
    let answer = api(node, key, "POST", path, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// A page that was published, and its guid.
pub async fn site(node: &Node, key: &str, name: &str, html: &str) -> String {
    let guid = made(node, key, "/content", json!({ "name": name })).await["guid"].as_str().unwrap().to_owned();
    let manifest = r#"{"version": 1, "metadata": {"appmode": "static", "primary_html": "index.html"}, "files": {}}"#;
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in [("manifest.json", manifest), ("index.html", html)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gz, &tar.into_inner().unwrap()).unwrap();
    let authorization = format!("Key {key}");
    let fields = [("authorization", authorization.as_str())];
    let path = format!("/__api__/v1/content/{guid}/bundles");
    let sent = Client::tcp(&node.address).await.request("POST", &path, &fields, &gz.finish().unwrap()).await;
    assert_eq!(sent.status, 200, "{}", sent.text());
    let deployed = api(node, key, "POST", &format!("/content/{guid}/deploy"), &json!({})).await;
    assert_eq!(deployed.status, 202, "{}", deployed.text());
    eventually("the deployment", async || {
        let told = api(node, key, "GET", &format!("/content/{guid}"), &Value::Null).await.json();
        (!told["bundle_id"].is_null()).then_some(())
    })
    .await;
    guid
}

#[test]
fn who_logs_in_on_one_node_is_known_on_the_other_until_their_session_ends() {
    within(120, async {
        let a = Node::start("a", "").await;
        let b = a.beside("b").await;
        let [admin, ..] = people(&a).await;
        let guid = site(&a, &admin, "site", "<h1>Hello</h1>").await;
        let path = format!("/content/{guid}/");
        api(&a, &admin, "PATCH", &format!("/content/{guid}"), &json!({ "access_type": "logged_in" })).await;

        let nobody = Jar::default();
        let sent = nobody.get(&a, "/connect/", &[]).await;
        assert_eq!((sent.status, sent.fields.get("location")), (303, Some("/connect/login?next=%2Fconnect%2F")));
        let sent = nobody.get(&b, &format!("{path}?a=b"), &[]).await;
        let login = format!("/connect/login?next=%2Fcontent%2F{guid}%2F%3Fa%3Db");
        assert_eq!((sent.status, sent.fields.get("location")), (303, Some(&*login)));
        let program = Client::tcp(&a.address).await.request("GET", &path, &[("accept", "*/*")], b"").await;
        assert_eq!(program.status, 401, "a program is told, not sent");

        let (wrong, none) = Jar::log_in(&a, "bob", "not it", "/connect/", &[]).await;
        assert!(wrong.status == 401 && none.0.is_empty() && wrong.text().contains("this is not their password"));
        let (done, jar) = Jar::log_in(&a, "Bob", "secret of bob", &path, &[]).await;
        assert_eq!((done.status, done.fields.get("location")), (303, Some(&*path)), "{}", done.text());
        let told = done.fields.all("set-cookie").find(|line| line.starts_with("bowline_session=")).unwrap();
        assert!(told.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{told}");
        for next in ["//evil.example/", "https://evil.example/", "/\\evil.example"] {
            let (done, _) = Jar::log_in(&a, "bob", "secret of bob", next, &[]).await;
            assert_eq!(done.fields.get("location"), Some("/connect/"), "{next}");
        }
        let tls = [
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "https"),
            ("x-rsc-request", "https://x.example/rsc/connect/login"),
        ];
        let (done, _) = Jar::log_in(&a, "bob", "secret of bob", "/connect/", &tls).await;
        let told = done.fields.all("set-cookie").find(|line| line.starts_with("__Secure-bowline_session=")).unwrap();
        assert!(told.ends_with("; Path=/rsc/; HttpOnly; SameSite=Lax; Secure"), "{told}");
        assert_eq!(done.fields.get("location"), Some("/rsc/connect/"), "below the path we are at");
        // At the top no other host of the domain can put one there, and what has another name is none.
        let (done, _) = Jar::log_in(&a, "bob", "secret of bob", "/connect/", &tls[..2]).await;
        let told = cookie(&done, "__Host-bowline_session").unwrap();
        assert_eq!(Jar(told.clone()).get(&a, "/connect/", &tls[..2]).await.status, 200);
        for tossed in [told.replace("__Host-", ""), told.replace("__Host-", "__Secure-")] {
            assert_eq!(Jar(tossed).get(&a, "/connect/", &tls[..2]).await.status, 303);
        }

        for node in [&a, &b] {
            let page = jar.get(node, "/connect/", &[]).await;
            assert!(page.status == 200 && page.text().contains("site"), "{}", page.text());
            for (name, value) in [
                ("x-frame-options", "DENY"),
                ("cross-origin-opener-policy", "same-origin"),
                ("cache-control", "no-store"),
                ("referrer-policy", "same-origin"),
            ] {
                assert_eq!(page.fields.get(name), Some(value));
            }
            let policy = page.fields.get("content-security-policy").unwrap();
            assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
            assert!(jar.get(node, &path, &[]).await.text().contains("Hello"));
            for api in ["/__api__/v1/user", "/__api__/v1/content", "/__api__/users/current", "/__api__/v1/keys"] {
                let refused = jar.get(node, api, &[]).await;
                assert_eq!(refused.status, 401, "{api}: the API takes no sessions");
                assert!(!refused.fields.has("set-cookie"));
            }
        }
        // Who changed a letter, or has two, is nobody.
        let last = if jar.0.ends_with('A') { "B" } else { "A" };
        let changed = Jar(format!("{}{last}", &jar.0[..jar.0.len() - 1]));
        let (_, other) = Jar::log_in(&a, "cy", "secret of cy", "/connect/", &[]).await;
        for strange in [changed, Jar(format!("{}; {}", other.0, jar.0)), Jar(jar.0.replace("session", "login"))] {
            assert!(!strange.is_known(&a).await, "{}", strange.0);
        }

        // Logging out ends it everywhere; so does a lock, and another password.
        let sent = jar.post(&b, "/connect/logout", &[], &format!("token={}", jar.token(&b).await)).await;
        assert_eq!((sent.status, cookie(&sent, "bowline_session")), (303, Some("bowline_session=".to_owned())));
        for node in [&a, &b] {
            eventually("the end of the session", async || (!jar.is_known(node).await).then_some(())).await;
        }
        let own = Folder::new();
        let new = own.write("new", "another secret").to_str().unwrap().to_owned();
        for deed in [&["user", "lock", "cy"][..], &["user", "password", "bob", "--password-file", &new]] {
            let name = deed[2];
            let (_, jar) = Jar::log_in(&a, name, &format!("secret of {name}"), "/connect/", &[]).await;
            assert!(jar.is_known(&a).await && jar.is_known(&b).await);
            a.command(deed).await;
            let since = tokio::time::Instant::now();
            for node in [&a, &b] {
                eventually("the end of the sessions", async || (!jar.is_known(node).await).then_some(())).await;
                let location = jar.get(node, &path, &[]).await.fields.get("location").map(str::to_owned);
                assert!(location.is_some_and(|location| location.starts_with("/connect/login")));
            }
            assert!(since.elapsed().as_millis() < 5_500, "{deed:?}: {:?}", since.elapsed());
        }
        a.command(&["user", "unlock", "cy"]).await;
        assert!(!other.is_known(&b).await, "what was ended stays so");
    });
}

#[test]
fn people_give_themselves_another_password_which_ends_their_sessions_elsewhere() {
    within(90, async {
        let a = Node::start("a", "").await;
        let b = a.beside("b").await;
        let [admin, ..] = people(&a).await;
        let log_in = async |password: &str| Jar::log_in(&b, "bob", password, "/connect/", &[]).await;
        let (_, jar) = log_in("secret of bob").await;
        let (_, elsewhere) = log_in("secret of bob").await;
        assert!(jar.is_known(&b).await && elsewhere.is_known(&a).await);
        let token = jar.token(&a).await;
        let change = async |token: &str, old: &str, new: &str, again: &str| {
            let pairs = [("do", "password"), ("token", token), ("old", old), ("new", new), ("again", again)];
            let sent = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
            jar.post(&a, "/connect/account", &[], &sent).await
        };
        let (old, new) = ("secret of bob", " ein neues für bob ");
        for (token, old, new, again, status, why) in [
            (&*token, "not it", new, new, 403, "another one than you wrote"),
            (&token, old, new, "something else", 400, "the same way twice"),
            (&token, old, "short", "short", 400, "A password has 8 to"),
            (&token, old, "bwl_looks_like_a_key", "bwl_looks_like_a_key", 400, "API keys do"),
            ("x", old, new, new, 403, "not one of your session"),
        ] {
            let refused = change(token, old, new, again).await;
            assert_eq!(refused.status, status, "{why}: {}", refused.text());
            assert!(refused.text().contains(why) && !refused.text().contains(new), "{why}: {}", refused.text());
            assert!(cookie(&refused, "bowline_session").is_none());
        }
        assert!(elsewhere.is_known(&a).await && jar.is_known(&a).await, "nothing has changed");

        let done = change(&token, old, new, new).await;
        let told = (done.status, done.fields.get("location"));
        assert_eq!(told, (303, Some("/connect/account?done=password")), "{}", done.text());
        let now = Jar(cookie(&done, "bowline_session").unwrap());
        let page = now.get(&b, "/connect/account?done=password", &[]).await;
        assert!(page.status == 200 && page.text().contains("is another one now"), "{}", page.text());
        for node in [&a, &b] {
            for ended in [&jar, &elsewhere] {
                eventually("the end of the session", async || (!ended.is_known(node).await).then_some(())).await;
            }
            assert!(now.is_known(node).await, "where it was changed they stay");
        }
        assert_eq!(log_in(new).await.0.status, 303);
        eventually("the end of the old one", async || (log_in(old).await.0.status == 401).then_some(())).await;
        let log = api(&a, &admin, "GET", "/audit?limit=1000", &Value::Null).await.json();
        let deeds = log.as_array().unwrap();
        let deed = deeds.iter().find(|deed| deed["action"] == "set_password").unwrap_or_else(|| panic!("{log}"));
        assert_eq!((&deed["who"], &deed["subject"]), (&"bob".into(), &"bob".into()));
        assert!(!log.to_string().contains("neues"), "{log}");
    });
}

#[test]
fn forms_are_taken_of_our_own_pages_only_and_pages_shown_to_people_only() {
    within(60, async {
        let a = Node::start("a", "").await;
        let [admin, ..] = people(&a).await;
        let (_, jar) = Jar::log_in(&a, "bob", "secret of bob", "/connect/", &[]).await;
        let (_, other) = Jar::log_in(&a, "cy", "secret of cy", "/connect/", &[]).await;
        let (token, others) = (jar.token(&a).await, other.token(&a).await);
        let form = |token: &str| format!("do=create&name=k&scope=publish&expires_in=30d&token={token}");
        let host = "http://localhost";
        for (what, fields, sent) in [
            ("no token", &[][..], form("")),
            ("somebody else's", &[], form(&others)),
            ("another site", &[("sec-fetch-site", "cross-site")], form(&token)),
            ("a site beside", &[("sec-fetch-site", "same-site")], form(&token)),
            ("another origin", &[("origin", "https://evil.example")], form(&token)),
            ("no origin", &[("origin", "null")], form(&token)),
            ("content's page", &[("referer", "http://localhost/content/x/")], form(&token)),
            ("a script", &[("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")], form(&token)),
            ("a frame", &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")], form(&token)),
        ] {
            let refused = jar.post(&a, "/connect/account", fields, &sent).await;
            assert_eq!(refused.status, 403, "{what}: {}", refused.text());
        }
        for fields in [
            &[("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")][..],
            &[("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "script")],
            &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")],
            &[
                ("sec-fetch-mode", "navigate"),
                ("sec-fetch-dest", "document"),
                ("sec-fetch-site", "same-origin"),
                ("referer", "http://localhost/content/x/"),
            ],
        ] {
            let refused = jar.get(&a, "/connect/account", fields).await;
            assert!(refused.status == 403 && !refused.text().contains(&token), "{fields:?}");
        }
        // A script gets what is there for ours, and only with the session's own token.
        let script = [("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty"), ("sec-fetch-site", "same-origin")];
        for (path, says) in [
            ("/connect/account", "x"),
            ("/connect/account", &*token),
            ("/connect/claim/T0123456789abcdef0123456789abcdef", &token),
            ("/connect/content/x/logs/1", "x"),
            ("/connect/content/x/logs/1", &others),
        ] {
            let refused = jar.get(&a, path, &[&script[..], &[("x-bowline-token", says)]].concat()).await;
            assert!(refused.status == 403 && !refused.text().contains(&token), "{path} {}", refused.status);
        }
        // A login form of somebody else's session is not ours.
        let page = Jar::default().get(&a, "/connect/login", &[]).await;
        let forged = format!("token={}&username=bob&password=secret+of+bob", value(&page, "token"));
        assert_eq!(Jar::default().post(&a, "/connect/login", &[], &forged).await.status, 403);

        let right = [
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
            ("origin", host),
            ("referer", "http://localhost/connect/account"),
        ];
        let made = jar.post(&a, "/connect/account", &right, &form(&token)).await;
        assert_eq!(made.status, 200, "{}", made.text());
        let text = made.text();
        let key = &text[text.find("bwl_").unwrap()..][..47];
        assert_eq!(api(&a, key, "GET", "/user", &Value::Null).await.json()["username"], "bob");
        let again = jar.get(&a, "/connect/account", &[]).await.text();
        assert!(!again.contains(key) && again.contains("own"), "it is shown once");
        // What a form asks for is allowed as the API allows it.
        let more = format!("do=create&name=k&scope=admin&token={token}");
        assert_eq!(jar.post(&a, "/connect/account", &right, &more).await.status, 403);
        for page in ["/connect/users", "/connect/groups", "/connect/nodes"] {
            assert_eq!(jar.get(&a, page, &[]).await.status, 403, "{page}");
        }
        let lock = format!("do=lock&user=ann&token={token}");
        assert_eq!(jar.post(&a, "/connect/users", &right, &lock).await.status, 403);
        let users = api(&a, &admin, "GET", "/users/ann", &Value::Null).await.json();
        assert_eq!(users["locked"], false);
    });
}

#[test]
fn content_is_seen_and_changed_by_those_it_is_shared_with_and_their_groups_on_every_node() {
    within(120, async {
        let database = Postgres::start();
        let more = format!("[database]\nurl = \"{}\"\n", database.url());
        let a = Node::start("a", &more).await;
        let b = a.beside("b").await;
        let [admin, bob, cy] = people(&a).await;
        let guid = site(&a, &admin, "site", "<h1>Hello</h1>").await;
        let of = async |name: &str| {
            let told = api(&a, &admin, "GET", &format!("/users/{name}"), &Value::Null).await.json();
            told["guid"].as_str().unwrap().to_owned()
        };
        let (bob_guid, cy_guid) = (of("bob").await, of("cy").await);
        let sees = async |node: &Node, key: &str| {
            let fields = [("authorization", &*format!("Key {key}"))];
            Client::tcp(&node.address).await.request("GET", &format!("/content/{guid}/"), &fields, b"").await.status
        };
        let becomes = async |key: &str, status: u16| {
            let since = tokio::time::Instant::now();
            for node in [&a, &b] {
                eventually("what is allowed", async || (sees(node, key).await == status).then_some(())).await;
            }
            assert!(since.elapsed().as_millis() < 2_000, "within a second: {:?}", since.elapsed());
        };
        becomes(&cy, 403).await;
        let group = made(&a, &admin, "/groups", json!({ "name": "Sales team" })).await;
        let group = group["guid"].as_str().unwrap();
        let permissions = format!("/content/{guid}/permissions");
        let wish = json!({ "principal_guid": group, "principal_type": "group", "role": "viewer" });
        let granted = made(&a, &admin, &permissions, wish.clone()).await;
        assert_eq!((&granted["content_guid"], &granted["role"]), (&guid.as_str().into(), &"viewer".into()));
        assert_eq!(sees(&b, &cy).await, 403);
        made(&a, &admin, &format!("/groups/{group}/members"), json!({ "user_guid": cy_guid })).await;
        becomes(&cy, 200).await;
        let members = api(&b, &admin, "GET", &format!("/groups/{group}/members"), &Value::Null).await.json();
        assert_eq!((&members["total"], &members["results"][0]["username"]), (&1.into(), &"cy".into()));
        let title = json!({ "title": "Mine" });
        for key in [&bob, &cy] {
            assert_eq!(api(&b, key, "PATCH", &format!("/content/{guid}"), &title).await.status, 403);
        }
        // A collaborator changes it, where they may publish at all.
        for (who, key, status) in [(&bob_guid, &bob, 200), (&cy_guid, &cy, 403)] {
            made(&a, &admin, &permissions, json!({ "principal_guid": who, "principal_type": "user", "role": "owner" }))
                .await;
            let changed = api(&b, key, "PATCH", &format!("/content/{guid}"), &title).await;
            assert_eq!(changed.status, status, "{}", changed.text());
        }
        let all = api(&a, &bob, "GET", &permissions, &Value::Null).await.json();
        let cys = all.as_array().unwrap().iter().find(|one| one["principal_guid"] == *cy_guid).unwrap();
        let one = format!("{permissions}/{}", cys["id"].as_str().unwrap());
        let viewer = json!({ "principal_guid": cy_guid, "principal_type": "user", "role": "viewer" });
        assert_eq!(api(&a, &bob, "PUT", &one, &viewer).await.json()["role"], "viewer");
        assert_eq!(api(&a, &bob, "DELETE", &one, &Value::Null).await.status, 204);
        assert_eq!(sees(&b, &cy).await, 200, "as one of the group");
        api(&a, &admin, "DELETE", &format!("/groups/{group}/members/{cy_guid}"), &Value::Null).await;
        becomes(&cy, 403).await;
        for (wrong, status) in [
            (json!({ "principal_guid": "nobody", "principal_type": "user", "role": "viewer" }), 404),
            (json!({ "principal_guid": cy_guid, "principal_type": "robot", "role": "viewer" }), 400),
            (json!({ "principal_guid": cy_guid, "principal_type": "user", "role": "king" }), 400),
        ] {
            assert_eq!(api(&a, &bob, "POST", &permissions, &wrong).await.status, status, "{wrong}");
        }
        for (method, path) in [("POST", "/groups"), ("DELETE", &*format!("/groups/{group}"))] {
            assert_eq!(api(&a, &bob, method, path, &json!({ "name": "x" })).await.status, 403);
        }
        assert_eq!(api(&a, &admin, "DELETE", &format!("/groups/{group}"), &Value::Null).await.status, 204);
        let left = api(&a, &admin, "GET", &permissions, &Value::Null).await.json();
        assert_eq!(left.as_array().unwrap().len(), 1, "a group's permissions end with it: {left}");

        // Locked content takes nothing new.
        api(&a, &admin, "PATCH", &format!("/content/{guid}"), &json!({ "locked": true })).await;
        for path in ["deploy", "build"] {
            assert_eq!(
                api(&b, &admin, "POST", &format!("/content/{guid}/{path}"), &json!({})).await.status,
                409,
                "{path}"
            );
        }
        let upload = api(&b, &admin, "POST", &format!("/content/{guid}/bundles"), &json!({})).await;
        assert_eq!(upload.status, 409, "{}", upload.text());
    });
}

#[test]
fn content_is_at_a_path_of_its_own_beside_its_guid() {
    within(180, async {
        let (a, b) = two_nodes("").await;
        let [admin, bob, _] = people(&a).await;
        let ca = Authority::new();
        let proxy = proxy(&[&a, &b], &ca).await;
        let one = site(&a, &admin, "one", "<h1>One</h1>").await;
        let two = site(&a, &bob, "two", "<h1>Two</h1>").await;
        for guid in [&one, &two] {
            api(&a, &admin, "PATCH", &format!("/content/{guid}"), &json!({ "access_type": "all" })).await;
        }
        let set = async |key: &str, guid: &str, wish: Value| {
            api(&a, key, "PUT", &format!("/content/{guid}/vanity"), &wish).await
        };
        for path in ["/", "/content/x/", "/connect/", "/__x__/", "/packages/p/", "/a//b/", "/../etc/", "/metrics/"] {
            assert_eq!(set(&admin, &one, json!({ "path": path })).await.status, 400, "{path}");
        }
        let told = set(&admin, &one, json!({ "path": "/team/sales" })).await;
        assert_eq!((told.status, &told.json()["path"]), (200, &"/team/sales/".into()), "{}", told.text());
        for path in ["/team/", "/team/sales/north/", "/Team/Sales/", "/team/sales/"] {
            assert_eq!(set(&bob, &two, json!({ "path": path })).await.status, 409, "{path}");
        }
        assert_eq!(set(&bob, &two, json!({ "path": "/team/sales/", "force": true })).await.status, 403, "not bob's");
        for node in [&a, &b] {
            let page = eventually("the path", async || {
                let page = Client::tcp(&node.address).await.get("/team/sales/").await;
                (page.status == 200).then_some(page)
            })
            .await;
            assert!(page.text().contains("One"));
            let moved = Client::tcp(&node.address).await.get("/team/sales?x=1").await;
            assert_eq!((moved.status, moved.fields.get("location")), (308, Some("/team/sales/?x=1")));
            assert_eq!(Client::tcp(&node.address).await.get(&format!("/content/{one}/")).await.status, 200);
            for path in ["/team/", "/team/salesx/", "/elsewhere/"] {
                assert_eq!(Client::tcp(&node.address).await.get(path).await.status, 404, "{path}");
            }
        }
        let told = api(&a, &admin, "GET", &format!("/content/{one}"), &Value::Null).await.json();
        assert!(told["content_url"].as_str().unwrap().ends_with(&format!("/content/{one}/")), "{told}");
        assert!(told["vanity_url"].as_str().unwrap().ends_with("/team/sales/"), "{told}");
        assert_eq!(set(&admin, &two, json!({ "path": "/team/sales/", "force": true })).await.status, 200);
        for node in [&a, &b] {
            eventually("the other content there", async || {
                Client::tcp(&node.address).await.get("/team/sales/").await.text().contains("Two").then_some(())
            })
            .await;
        }
        assert_eq!(api(&a, &admin, "GET", &format!("/content/{one}/vanity"), &Value::Null).await.status, 404);
        assert_eq!(api(&a, &bob, "DELETE", &format!("/content/{two}/vanity"), &Value::Null).await.status, 204);
        eventually("the end of the path", async || {
            (Client::tcp(&b.address).await.get("/team/sales/").await.status == 404).then_some(())
        })
        .await;

        // An application is told the path it is at, who looks, and nothing of their session.
        let publisher = Publisher::new(&proxy, admin.clone());
        let app = Folder::new();
        app.write(
            "app.py",
            "from fastapi import FastAPI, Request\napp = FastAPI()\n@app.get('/where')\ndef where(request: Request):\n    \
             return {'root': request.scope['root_path'], 'cookie': request.headers.get('cookie'), \
             'user': request.headers.get('shiny-server-credentials'), 'own': request.headers.get('authorization')}\n",
        );
        app.write("requirements.txt", "fastapi\n");
        let told = publisher.runs(&["deploy", "fastapi"], &[app.root().to_str().unwrap()]).await.ok();
        let guid = Publisher::guid(&told);
        assert_eq!(set(&admin, &guid, json!({ "path": "/forecast/" })).await.status, 200);
        let (_, jar) = Jar::log_in(&a, "ann", "secret of ann", "/connect/", &[]).await;
        let jar = Jar(format!("mine=1; {}; bowline_login=x", jar.0));
        for node in [&a, &b] {
            let seen = eventually("the API at its path", async || {
                let seen = jar.get(node, "/forecast/where", &[("authorization", "Bearer its own")]).await;
                (seen.status == 200).then_some(seen)
            })
            .await
            .json();
            assert_eq!((&seen["root"], &seen["cookie"]), (&"/forecast".into(), &"mine=1".into()), "{seen}");
            assert_eq!(seen["user"], "{\"groups\":[],\"user\":\"ann\"}");
            assert_eq!(seen["own"], "Bearer its own", "what is none of ours is the content's");
        }
    });
}

#[test]
fn content_with_an_origin_of_its_own_is_opened_by_a_ticket_that_holds_once() {
    within(60, async {
        let urls = "external_url = \"http://pages.test\"\n[content]\nexternal_url = \"http://apps.test\"\n";
        let folder = std::sync::Arc::new(Folder::new());
        crate::harness::bowline(&["keygen", folder.path("node.key").to_str().unwrap()]).await.ok();
        // The top of the file comes before its tables.
        let (top, more) = urls.split_once('\n').unwrap();
        let config = format!(
            "role = \"node\"\n{top}\nkey_file = \"node.key\"\n[[listener]]\nname = \"http\"\naddress = \"127.0.0.1:0\"\n{more}"
        );
        let a = Node::start_exactly_in(folder, &config).await;
        let [admin, ..] = people(&a).await;
        let guid = site(&a, &admin, "site", "<h1>Hello</h1>").await;
        let path = format!("/content/{guid}/");
        let (pages, apps) = (("host", "pages.test"), ("host", "apps.test"));
        let (_, jar) = Jar::log_in(&a, "ann", "secret of ann", "/connect/", &[pages]).await;

        let there = jar.get(&a, &path, &[pages]).await;
        assert_eq!((there.status, there.fields.get("location")), (303, Some(&*format!("http://apps.test{path}"))));
        let program = Client::tcp(&a.address).await;
        let mut program = program;
        let told = program.request("GET", &path, &[pages, ("cookie", &jar.0)], b"").await;
        assert_eq!(told.status, 401, "no session counts at the pages' origin");
        let browser = [pages, ("sec-fetch-mode", "navigate"), ("sec-fetch-site", "cross-site")];
        let remembered = [&browser[..], &[("authorization", "Basic YW5uOng=")]].concat();
        for (method, status, fields) in [("POST", 307, &browser[..]), ("GET", 303, &remembered)] {
            let moved = program.request(method, &path, fields, b"").await;
            assert_eq!(moved.status, status, "nothing a browser shows is shown at the pages' origin");
            assert_eq!(moved.fields.get("location"), Some(&*format!("http://apps.test{path}")));
        }
        assert_eq!(jar.get(&a, &path, &[apps]).await.status, 303, "nor does the pages' session at content's");
        let sent = Jar::default().get(&a, &path, &[apps]).await;
        let (back, visitor) = (sent.fields.get("location").unwrap().to_owned(), cookie(&sent, "bowline_arriving"));
        let visitor = Jar(visitor.expect("the browser is known when it comes back"));
        assert!(back.starts_with("http://pages.test/connect/open?next=%2Fcontent%2F"), "{back}");
        for own in ["/", "/connect/", "/connect/login", "/__api__/v1/user", "/packages/x/simple/", "/__ping__"] {
            assert_eq!(jar.get(&a, own, &[apps]).await.status, 404, "{own}");
        }

        let open = back.strip_prefix("http://pages.test").unwrap();
        let sent = jar.get(&a, open, &[pages]).await;
        let ticket = sent.fields.get("location").unwrap().strip_prefix("http://apps.test").unwrap().to_owned();
        let elsewhere = ticket.replace("next=%2Fcontent", "next=%2Fconnect");
        assert_eq!(visitor.get(&a, &elsewhere, &[apps]).await.status, 403, "it is for one place");
        assert_eq!(visitor.get(&a, &ticket, &[pages]).await.status, 404);
        let other = Jar::default().get(&a, &path, &[apps]).await;
        for other in [Jar::default(), Jar(cookie(&other, "bowline_arriving").unwrap())] {
            assert_eq!(other.get(&a, &ticket, &[apps]).await.status, 403, "and for one browser");
        }
        assert_eq!(visitor.get(&a, &ticket, &[apps]).await.status, 403, "whoever brought it has used it up");
        let sent = jar.get(&a, open, &[pages]).await;
        let ticket = sent.fields.get("location").unwrap().strip_prefix("http://apps.test").unwrap().to_owned();
        let arrived = visitor.get(&a, &ticket, &[apps]).await;
        assert_eq!((arrived.status, arrived.fields.get("location")), (303, Some(&*path)));
        let own = Jar(cookie(&arrived, "bowline_session").unwrap());
        assert_eq!(own.get(&a, &path, &[apps]).await.text(), "<h1>Hello</h1>");
        assert_eq!(visitor.get(&a, &ticket, &[apps]).await.status, 403, "once");
        let unbound = open.split("&browser=").next().unwrap();
        let sent = jar.get(&a, unbound, &[pages]).await;
        assert_eq!(sent.fields.get("location"), Some(&*format!("http://apps.test{path}")), "content asks for a ticket");
        assert_eq!(own.get(&a, "/connect/", &[pages]).await.status, 303, "content's session opens no pages");

        let page = jar.get(&a, &format!("/connect/content/{guid}"), &[pages]).await;
        assert!(page.text().contains("src=\"http://apps.test/__login__?ticket="), "{}", page.text());
        let framed = async || {
            let text = jar.get(&a, &format!("/connect/content/{guid}"), &[pages]).await.text();
            let at = text.split("src=\"http://apps.test").nth(1).unwrap().split('"').next().unwrap();
            at.replace("&amp;", "&")
        };
        let told = |dest, site| [apps, ("sec-fetch-dest", dest), ("sec-fetch-site", site)];
        for (dest, site) in [("document", "cross-site"), ("document", "none"), ("iframe", "cross-site")] {
            let status = Jar::default().get(&a, &framed().await, &told(dest, site)).await.status;
            assert_eq!(status, 403, "it is for a frame of ours: {site}");
        }
        assert_eq!(Jar::default().get(&a, &framed().await, &told("iframe", "same-site")).await.status, 303);
        assert!(page.fields.get("content-security-policy").unwrap().contains("frame-src 'self' http://apps.test"));
        // The sessions at both end together.
        jar.post(&a, "/connect/logout", &[pages], &format!("token={}", value(&page, "token"))).await;
        assert_eq!(own.get(&a, &path, &[apps]).await.status, 303);
    });
}

#[test]
fn a_person_uses_the_pages_in_a_browser_and_scripts_of_content_do_not() {
    within(180, async {
        let a = Node::start("a", "").await;
        let b = a.beside("b").await;
        let [admin, bob, _] = people(&a).await;
        let ca = Authority::new();
        let proxy = proxy(&[&a, &b], &ca).await;
        let guid = site(&a, &admin, "report", "<h1>Report</h1>").await;
        api(&a, &admin, "PATCH", &format!("/content/{guid}"), &json!({ "title": "A <b>bold</b> report" })).await;
        let hostile = site(&a, &bob, "hostile", "<h1>Hostile</h1>").await;
        api(&a, &admin, "PATCH", &format!("/content/{hostile}"), &json!({ "access_type": "logged_in" })).await;
        let own = Folder::new();
        let chromium = tool("chromium");
        let told = [
            &script("pages.mjs"),
            chromium.to_str().unwrap(),
            own.root().to_str().unwrap(),
            &base(&proxy),
            &guid,
            &hostile,
        ];
        let told = run(&tools::node(), &told, "").await.ok().json();
        assert_eq!(told["listed"], "A <b>bold</b> report", "{told}");
        assert_eq!(told["framed"], "Report");
        assert_eq!(told["parent"], "SecurityError", "what is in the frame cannot reach the page");
        assert_eq!((&told["before"], &told["after"]), (&403.into(), &200.into()), "{told}");
        assert_eq!(
            told["scripts"],
            json!({ "fetched": 403, "framed": "nothing", "opened": false, "posted": 403 }),
            "{told}"
        );
        assert_eq!(told["errors"], json!([]), "{told}");
    });
}

#[test]
fn posit_sdk_does_what_it_does_elsewhere() {
    within(120, async {
        let database = Postgres::start();
        let more = format!("[database]\nurl = \"{}\"\n", database.url());
        let a = Node::start("a", &more).await;
        let [admin, ..] = people(&a).await;
        let python = client("posit-sdk", "python");
        let own = Folder::new();
        let url = format!("http://{}", a.address);
        let told = run(&python, &[&script("sdk.py"), &url, &admin, own.root().to_str().unwrap()], "").await.ok();
        assert_eq!(told.stdout.trim(), "done", "{}", told.stderr);
    });
}
