//! What three generations of R's rsconnect ask for, request by request, with a key and with a token; no request goes to the
//! node that the one before went to. Each answer has what its client cannot do without.

use serde_json::Value;

use crate::harness::{Authority, Client, Folder, Node, Postgres, Response, within};
use crate::packages::proxy;
use crate::signed::{Token, basic, claim};

/// A request. `{id}`, `{guid}`, `{account}`, `{bundle}`, `{task}` and `{last}` are what answers before it said.
struct Step {
    method: &'static str,
    target: &'static str,
    body: Sent,
    /// Pointers into the answer (RFC 6901), and under which name what is there is remembered; may be empty.
    wants: &'static [(&'static str, &'static str)],
}

#[derive(Clone, Copy)]
enum Sent {
    Nothing,
    Json(&'static str),
    /// A bundle with this page.
    Page(&'static str),
}

use Sent::{Json, Nothing, Page};

const fn get(target: &'static str, wants: &'static [(&'static str, &'static str)]) -> Step {
    Step { method: "GET", target, body: Nothing, wants }
}

const fn post(target: &'static str, body: Sent, wants: &'static [(&'static str, &'static str)]) -> Step {
    Step { method: "POST", target, body, wants }
}

/// Who they are, and whether there is such content.
const BEGIN: &[Step] = &[
    get("/users/current", &[("/id", "account"), ("/username", "")]),
    get(
        "/applications?filter=account_id:{account}&filter=name:{name}&count=100&start=0&cont=",
        &[("/applications", ""), ("/total", ""), ("/count", "")],
    ),
];

/// 0.8 publishes, and once more.
const OLD: &[Step] = &[
    post("/applications", Json("{\n  \"name\": \"{name}\"\n}\n"), &[("/id", "id"), ("/guid", "guid"), ("/url", "")]),
    post("/applications/{id}/upload", Page("one"), &[("/id", "bundle")]),
    post("/applications/{id}/deploy", Json("{\n  \"bundle\": {bundle}\n}\n"), &[("/id", "task")]),
    get(
        "/tasks/{task}?first_status={last}",
        &[("/status", ""), ("/last_status", "last"), ("/finished", "until"), ("/code", ""), ("/error", "")],
    ),
    get("/applications/{id}/config", &[("/config_url", "")]),
    get(
        "/applications?filter=account_id:{account}&filter=name:{name}&count=100&offset=0",
        &[("/applications/0/id", "id"), ("/applications/0/url", ""), ("/total", ""), ("/count", "")],
    ),
    post("/applications/{id}/upload", Page("two"), &[("/id", "bundle")]),
    post("/applications/{id}/deploy", Json("{\n  \"bundle\": {bundle}\n}\n"), &[("/id", "task")]),
    get("/tasks/{task}?first_status={last}", &[("/status", ""), ("/last_status", "last"), ("/finished", "until")]),
    get("/applications/{id}/config", &[("/config_url", "")]),
];

/// 1.6 asks for tasks as the new API has them, and for content by its number.
const MIDDLE: &[Step] = &[
    post("/applications", Json("{\"name\": \"{name}\"}"), &[("/id", "id"), ("/guid", "guid"), ("/dashboard_url", "")]),
    VARIABLES,
    post("/applications/{id}/upload", Page("one"), &[("/id", "bundle")]),
    post("/applications/{id}/deploy", Json("{\"bundle\": {bundle}}"), &[("/id", "task")]),
    TASK,
    get("/applications/{id}/config", &[("/config_url", "")]),
    get("/applications/{id}", &[("/id", ""), ("/guid", ""), ("/url", ""), ("/title", "")]),
    post("/applications/{id}/upload", Page("two"), &[("/id", "bundle")]),
    post("/applications/{id}/deploy", Json("{\"bundle\": {bundle}}"), &[("/id", "task")]),
    TASK,
    get("/applications/{id}/config", &[("/config_url", "")]),
];

/// Those from 1.7 on publish by the new API, and look content up by the old one.
const NEW: &[Step] = &[
    post("/v1/content", Json("{\"name\": \"{name}\"}"), &[("/id", "id"), ("/guid", "guid"), ("/dashboard_url", "")]),
    VARIABLES,
    post("/v1/content/{guid}/bundles", Page("one"), &[("/id", "bundle")]),
    post("/v1/content/{guid}/deploy", Json("{\"bundle_id\": \"{bundle}\"}"), &[("/task_id", "task")]),
    TASK,
    get("/applications/{id}", &[("/id", ""), ("/guid", "guid"), ("/dashboard_url", "")]),
    post("/v1/content/{guid}/bundles", Page("two"), &[("/id", "bundle")]),
    post("/v1/content/{guid}/deploy", Json("{\"bundle_id\": \"{bundle}\"}"), &[("/task_id", "task")]),
    TASK,
];

const VARIABLES: Step = Step {
    method: "PATCH",
    target: "/v1/content/{guid}/environment",
    body: Json("[{\"name\": \"COLOUR\", \"value\": \"blue\"}, {\"name\": \"GONE\", \"value\": null}]"),
    wants: &[("/0", "")],
};

const TASK: Step = get(
    "/v1/tasks/{task}?first={last}&wait=1",
    &[("/output", ""), ("/last", "last"), ("/finished", "until"), ("/code", ""), ("/error", "")],
);

/// `applications()` makes a table of what there is: nothing of these may be missing.
const TABLE: &[&str] = &["id", "name", "title", "url", "build_status", "created_time", "last_deployed_time", "guid"];

/// How a client says who it is.
enum Credential {
    Key(String),
    Token(Token),
}

/// A client: one connection for all it asks, as R has it.
struct Caller {
    agent: &'static str,
    credential: Credential,
    connection: Client,
    known: Vec<(&'static str, String)>,
}

impl Caller {
    fn filled(&self, text: &str) -> String {
        self.known.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
    }

    fn learns(&mut self, name: &'static str, value: String) {
        self.known.retain(|(known, _)| *known != name);
        self.known.push((name, value));
    }

    async fn asks(&mut self, step: &Step) -> Response {
        let target = format!("/__api__{}", self.filled(step.target));
        let (kind, body) = match step.body {
            Nothing => (None, Vec::new()),
            Json(text) => (Some("application/json"), self.filled(text).into_bytes()),
            Page(text) => (Some("application/x-gzip"), bundle(text)),
        };
        let mut fields = match &self.credential {
            Credential::Key(key) => vec![("Authorization", format!("Key {key}"))],
            Credential::Token(token) => token.sign(step.method, target.split('?').next().unwrap(), &body).await,
        };
        fields.extend([("User-Agent", self.agent.to_owned()), ("Accept", "*/*".to_owned())]);
        fields.extend(kind.map(|kind| ("Content-Type", kind.to_owned())));
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.connection.request(step.method, &target, &fields, &body).await
    }

    async fn does(&mut self, step: &Step) {
        loop {
            let answer = self.asks(step).await;
            let what = format!("{}: {} {}", self.agent, step.method, step.target);
            assert!((200..300).contains(&answer.status), "{what}: {} {}", answer.status, answer.text());
            assert_eq!(answer.fields.get("content-type"), Some("application/json"), "{what}");
            assert!(!answer.fields.has("set-cookie"), "{what}: some clients forget all others then");
            let told = answer.json();
            let mut is_over = true;
            for (at, name) in step.wants {
                let found = told.pointer(at).unwrap_or_else(|| panic!("{what}: no {at} in {told}"));
                let text = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
                match *name {
                    "" => {}
                    "until" => is_over = found == true,
                    name => self.learns(name, text),
                }
            }
            if is_over {
                return;
            }
        }
    }
}

/// With this page, as R's own tar writes them.
pub fn bundle(text: &str) -> Vec<u8> {
    let manifest = r#"{"version": 1, "locale": "C", "platform": "4.2.2", "metadata": {"appmode": "static",
        "primary_rmd": null, "primary_html": "index.html", "content_category": null, "has_parameters": false},
        "packages": null, "files": {"index.html": {"checksum": "db62f4cb4fcc479f95c45e5aa8d2c0be"}}, "users": null}"#;
    let mut all = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, text) in [("./index.html", text), ("./manifest.json", manifest)] {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        all.append(&header, text.as_bytes()).unwrap();
    }
    all.into_inner().unwrap().finish().unwrap()
}

#[test]
fn every_generation_of_rsconnect_is_answered_what_it_needs() {
    within(180, async {
        let database = Postgres::start();
        let a = Node::start("a", &format!("[database]\nurl = \"{}\"\n", database.url())).await;
        let b = a.beside("b").await;
        let ca = Authority::new();
        let proxy = proxy(&[&a, &b], &ca).await;
        let own = Folder::new();
        let password = own.write("password", "secret of ann").to_str().unwrap().to_owned();
        a.command(&["user", "create", "ann", "--role", "publisher", "--password-file", &password]).await;
        let key = a.command(&["key", "create", "--user", "ann", "--scope", "publish"]).await;
        let mut n = 0;
        for (agent, steps) in [("rsconnect/0.8.29", OLD), ("rsconnect/1.6.2", MIDDLE), ("RSConnect/1.10.1.9000", NEW)] {
            for by_token in [false, true] {
                n += 1;
                let mut connection = Client::tls(proxy.web(), &ca.trust("localhost")).await;
                let anonymous = [("X-Auth-Token", "anonymous-access"), ("Content-Type", "application/json")];
                let settings = connection.request("GET", "/__api__/server_settings", &anonymous, b"").await;
                assert!(settings.json()["version"].is_string());
                let credential = if by_token {
                    let token = Token::new(&format!("T91398183a74502d7d2da58d65fda{n}")).await;
                    let body = token.body().await;
                    let made = connection.request("POST", "/__api__/tokens", &anonymous, body.as_bytes()).await;
                    let url = made.json()["token_claim_url"].as_str().unwrap().to_owned();
                    assert!(url.starts_with("https://") && url.ends_with(&token.name), "{url}");
                    assert_eq!(claim(&a.address, &token.name, &basic("ann", "secret of ann")).await.status, 200);
                    Credential::Token(token)
                } else {
                    Credential::Key(key.clone())
                };
                let known = vec![("name", format!("site-{n}")), ("last", "0".to_owned())];
                let mut caller = Caller { agent, credential, connection, known };
                for step in BEGIN.iter().chain(steps) {
                    if matches!(step.body, Json(_)) {
                        caller.learns("last", "0".to_owned());
                    }
                    caller.does(step).await;
                }
                let at = caller.filled("/content/{guid}/");
                let fields = [("authorization", &*basic("ann", "secret of ann"))];
                let seen = caller.connection.request("GET", &at, &fields, b"").await;
                assert_eq!((seen.status, seen.text().as_str()), (200, "two"), "{agent}");
            }
        }
        let mut connection = Client::tls(proxy.web(), &ca.trust("localhost")).await;
        let key = format!("Key {key}");
        let all = connection
            .request(
                "GET",
                "/__api__/applications?filter=account_id:1&count=100&start=0&cont=",
                &[("authorization", &key)],
                b"",
            )
            .await
            .json();
        assert_eq!((&all["total"], &all["count"]), (&6.into(), &6.into()), "{all}");
        for row in all["applications"].as_array().unwrap() {
            let missing: Vec<_> =
                TABLE.iter().filter(|name| row.get(**name).is_none_or(|v| v.is_null() && **name != "title")).collect();
            assert!(missing.is_empty(), "{missing:?} of {row}");
        }
        // Where there is none any more, the client offers to make it anew.
        let gone = connection.request("GET", "/__api__/applications/4711", &[("authorization", &key)], b"").await;
        assert_eq!((gone.status, &gone.json()["code"], &gone.json()["payload"]), (404, &4.into(), &Value::Null));
    });
}
