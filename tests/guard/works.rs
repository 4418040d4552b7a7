//! What is counted: what the pure core does for one request. Each work asserts that it does what its name says.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bowline::config::proxy as settings;
use bowline::config::proxy::{AdminState, CookieAffinity, HostPattern, Policy, PoolTimeouts};
use bowline::proxy::affinity::{Affinity, Hint, KeyRing};
use bowline::proxy::connection::framing::Framing;
use bowline::proxy::connection::head::{self, Bounds, FIELDS_MAX, Parsed};
use bowline::proxy::headers::{AnswerEdits, Fields, Hop, RequestEdits, Way};
use bowline::proxy::pool::{Pick, Pool, Reason};
use bowline::proxy::route::Table;
use bowline::runtime::clock;
use bowline::types::{BackendAddress, BackendKey};
use http::request::Parts;

/// A name, and what does it so many times.
pub(crate) type Work = (&'static str, Box<dyn Fn(usize) + Send + Sync>);

/// All there are.
pub(crate) fn works() -> Vec<Work> {
    let affinity = affinity();
    let cookie = cookie(&affinity);
    vec![
        each("read a small head", SMALL, |head| read(head, |parsed| parsed.head.len)),
        each("read a browser's head", BROWSER, |head| read(head, |parsed| parsed.head.len)),
        each("judge a browser's head of HTTP/2", parts(), judge),
        ("edit a small request", Box::new(|times| read(SMALL, |parsed| edit(times, parsed)))),
        ("edit a browser's request", Box::new(|times| read(BROWSER, |parsed| edit(times, parsed)))),
        ("edit an answer of 20 fields", Box::new(edit_answers)),
        each("find a route among 1", routes(0), |routes| find(routes, "/page?x=1")),
        each("find a route among 1000", routes(999), |routes| find(routes, "/r0500/1k?x=1")),
        each("read an affinity cookie", cookie, move |cookie| {
            let hint = affinity.read([cookie.as_bytes()].into_iter(), NOW_UNIX_S);
            assert!(matches!(hint, Hint::Bound { renew: false, .. }), "{hint:?}");
            hint
        }),
        each("pick among 2 backends", pool(2), |pool| pick(pool, None)),
        each("pick among 200 backends", pool(200), |pool| pick(pool, None)),
        each("pick a client's own of 200 backends", (pool(200), key(150)), |(pool, own)| pick(pool, Some(own))),
    ]
}

/// Work done again and again with one thing.
fn each<T, R>(name: &'static str, thing: T, one: impl Fn(&T) -> R + Send + Sync + 'static) -> Work
where
    T: Send + Sync + 'static,
{
    (name, Box::new(move |times| (0..times).for_each(|_| drop(black_box(one(black_box(&thing)))))))
}

const BOUNDS: Bounds = Bounds { bytes: 64 << 10, fields: 100 };

fn read<T>(head: &str, then: impl Fn(&Parsed<'_>) -> T) -> T {
    head::read(head.as_bytes(), BOUNDS, &mut 0, then).expect("nothing is wrong with it").expect("it is whole")
}

fn judge(parts: &Parts) -> Framing {
    let lines =
        parts.headers.iter().map(|(name, value)| httparse::Header { name: name.as_str(), value: value.as_bytes() });
    let lines: Vec<_> = lines.collect();
    head::judge_parts(parts, &Fields::new(&lines), true, BOUNDS).expect("nothing is wrong with it")
}

/// As of a connection that stays.
fn edit(times: usize, parsed: &Parsed<'_>) {
    let (way, mut out) = (Way::new(Some(([192, 0, 2, 7], 50_000).into()), true, 8443), Vec::new());
    for _ in 0..times {
        edit_once(parsed, &way, &mut out);
    }
}

fn edit_once(parsed: &Parsed<'_>, way: &Way, out: &mut Vec<u8>) {
    let fields = parsed.fields;
    let hop = Hop {
        way,
        host: parsed.host,
        trusted: false,
        request_id: "0123456789abcdef0123456789abcdef",
        rsc_request: true,
        target: &parsed.target,
        wants_identity: false,
    };
    let edits = RequestEdits::new(black_box(parsed.fields), black_box(hop));
    let passing = fields.iter().filter(|(field, known)| edits.passes(field.name.as_bytes(), *known)).count();
    assert_eq!(passing, fields.lines.len(), "nothing of the kind that does not pass");
    out.clear();
    edits.add(out);
    black_box(&out);
}

fn edit_answers(times: usize) {
    let mut room = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut answer = httparse::Response::new(&mut room);
    assert!(answer.parse(ANSWER.as_bytes()).expect("nothing is wrong with it").is_complete());
    let fields = Fields::new(answer.headers);
    for _ in 0..times {
        let edits = AnswerEdits::new(200, black_box(&fields));
        let passing = fields.iter().filter(|(field, known)| edits.passes(field.name.as_bytes(), *known)).count();
        assert_eq!(black_box(passing), fields.lines.len() - 1, "all but Connection");
    }
}

/// What HTTP/2 makes of the browser's head.
fn parts() -> Parts {
    read(BROWSER, |parsed| {
        let mut request = http::Request::get(format!("https://{}{}", parsed.host, parsed.target));
        for (name, value) in &parsed.fields.to_map() {
            request = request.header(name, value);
        }
        request.body(()).expect("a request").into_parts().0
    })
}

/// `/`, and beside it so many: `/r0000`, `/r0001` …
fn routes(more: usize) -> Table<usize> {
    let path = |i: usize| if i < more { format!("/r{i:04}") } else { "/".to_owned() };
    Table::new((0..=more).map(|i| (HostPattern::Any, path(i), i)).collect())
}

fn find(routes: &Table<usize>, target: &str) -> usize {
    *routes.find(Some(black_box("app.example.org:8443")), black_box(target)).expect("there is one")
}

fn affinity() -> Affinity {
    let settings =
        CookieAffinity { name: "bowline_app".to_owned(), key_file: "unused".into(), lifetime: None, cross_site: false };
    let ring = KeyRing::parse(&KeyRing::generate(std::array::from_fn(|i| i as u8))).expect("a ring");
    Affinity::new(&settings, "app", Arc::new(ring))
}

const NOW_UNIX_S: u64 = 1_800_000_000;

/// A `Cookie` field: the application's own, then ours.
fn cookie(affinity: &Affinity) -> String {
    let field = affinity.set_cookie(&key(1), NOW_UNIX_S, [7; 12], true);
    let ours = field.to_str().expect("ASCII").split("; ").next().expect("a pair");
    format!("theme=dark; _ga=GA1.2.1234567890.1700000000; csrftoken=9f8e7d6c5b4a39281706f5e4d3c2b1a0; {ours}")
}

fn key(number: usize) -> BackendKey {
    format!("b{number}").parse().expect("a key")
}

/// One of so many backends, and when it was made.
fn pool(count: usize) -> (Pool, Instant) {
    let minute = Duration::from_secs(60);
    let address = |i| BackendAddress::Inet { host: "node".to_owned(), port: 1000 + i as u16 };
    let backend = |i| settings::Backend { key: key(i), address: address(i), weight: 1, admin: AdminState::Enabled };
    let settings = settings::Pool {
        name: "app".into(),
        policy: Policy::LeastSessions,
        affinity: None,
        tls: None,
        // Without, all are up from the beginning.
        probe: None,
        backends: (0..count).map(backend).collect(),
        timeouts: PoolTimeouts {
            connect: minute,
            response: minute,
            body: minute,
            keepalive: minute,
            tunnel_idle: minute,
            tunnel_ping: minute,
            startup: minute,
        },
        reconnect_shim: false,
        rsc_request: true,
        heeds_leaving: false,
        fail_open: false,
        retries: 2,
    };
    let now = clock::now();
    (Pool::new(Arc::new(settings), None, now), now)
}

fn pick((pool, now): &(Pool, Instant), bound: Option<&BackendKey>) -> Pick {
    let pick = pool.pick(bound, &[], *now).expect("everybody is up");
    assert_eq!(pick.reason, if bound.is_some() { Reason::Sticky } else { Reason::Balanced });
    pick
}

/// As a tool sends it.
const SMALL: &str = "GET /1k HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: curl/8.14.1\r\nAccept: */*\r\n\r\n";

/// 20 fields, as of a browser that opens a page.
const BROWSER: &str = "\
    GET /apps/overview/?tab=2 HTTP/1.1\r\n\
    Host: shiny.example.org\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/149.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
    Cache-Control: max-age=0\r\n\
    Cookie: theme=dark; _ga=GA1.2.1234567890.1700000000; csrftoken=9f8e7d6c5b4a39281706f5e4d3c2b1a0\r\n\
    DNT: 1\r\n\
    Pragma: no-cache\r\n\
    Priority: u=0, i\r\n\
    Referer: https://shiny.example.org/apps/\r\n\
    Sec-CH-UA: \"Chromium\";v=\"149\", \"Not-A.Brand\";v=\"24\"\r\n\
    Sec-CH-UA-Mobile: ?0\r\n\
    Sec-CH-UA-Platform: \"Linux\"\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-User: ?1\r\n\
    Sec-GPC: 1\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    \r\n";

/// 20 fields, as of an application's page.
const ANSWER: &str = "\
    HTTP/1.1 200 OK\r\n\
    Server: nginx/1.22.1\r\n\
    Date: Sun, 22 Nov 2026 04:00:00 GMT\r\n\
    Content-Type: text/html; charset=utf-8\r\n\
    Content-Length: 1024\r\n\
    Last-Modified: Sun, 22 Nov 2026 03:00:00 GMT\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: no-cache, no-store, must-revalidate, private\r\n\
    Content-Security-Policy: default-src 'self'; img-src 'self' data: https:; connect-src 'self' wss:\r\n\
    ETag: W/\"5f8d-Jc2kQm3pVt0bqk8nYw4eHq1sXzA\"\r\n\
    Expires: 0\r\n\
    Pragma: no-cache\r\n\
    Permissions-Policy: camera=(), microphone=(), geolocation=()\r\n\
    Referrer-Policy: strict-origin-when-cross-origin\r\n\
    Set-Cookie: session=Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA; Path=/; HttpOnly; SameSite=Lax\r\n\
    Strict-Transport-Security: max-age=31536000; includeSubDomains\r\n\
    Vary: Accept-Encoding, Cookie\r\n\
    X-Content-Type-Options: nosniff\r\n\
    X-Frame-Options: SAMEORIGIN\r\n\
    X-Powered-By: Shiny/1.12\r\n\
    Accept-Ranges: bytes\r\n\
    \r\n";
