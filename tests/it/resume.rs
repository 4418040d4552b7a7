//! Sessions that outlive connections: what an app knows only in its process is there after a break.

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::content::{Publisher, open_to_all, shiny_app, two_nodes};
use crate::harness::websocket::CLOSE;
use crate::harness::{
    Authority, Client, Folder, Frame, Link, Metrics, Node, Proxy, Response, Socket, eventually, get, get_as, patiently,
    within,
};
use crate::packages::proxy_with;

/// Counts what comes, and what the page sees of its connection.
const PAGE: &str = "window.ticks = []; window.lost = 0; \
    $(document).on('shiny:connected', function() { \
    Shiny.addCustomMessageHandler('tick', function(n) { window.ticks.push(n); }); }); \
    $(document).on('shiny:disconnected', function() { window.lost += 1; });";

/// A bundle of this text of R.
fn bundle_of_r(folder: &Folder, text: String) {
    folder.write("app.R", text);
    folder.write(
        "manifest.json",
        json!({
            "version": 1, "platform": "4.2.2",
            "metadata": {"appmode": "shiny", "primary_rmd": null, "primary_html": null, "content_category": null, "has_parameters": false},
            "packages": {}, "files": {"app.R": {"checksum": "0"}},
        })
        .to_string(),
    );
}

/// An app that counts clicks in its session only, and ticks.
fn app_in_r(folder: &Folder) {
    bundle_of_r(
        folder,
        format!(
            "library(shiny)\n\
             ui <- fluidPage(actionButton('more', 'More'), textOutput('count'), tags$script(HTML(\"{PAGE}\")))\n\
             server <- function(input, output, session) {{\n  \
             count <- reactiveVal(0)\n  observeEvent(input$more, count(count() + 1))\n  \
             output$count <- renderText(count())\n  \
             n <- 0\n  observe({{\n    invalidateLater(50)\n    n <<- n + 1\n    session$sendCustomMessage('tick', n)\n  }})\n\
             }}\nshinyApp(ui, server)\n"
        ),
    );
}

fn app_in_python(folder: &Folder) {
    folder.write(
        "app.py",
        format!(
            "from shiny import App, reactive, render, ui\n\
             app_ui = ui.page_fluid(ui.input_action_button('more', 'More'), ui.output_text('count'), \
             ui.tags.script(ui.HTML(\"{PAGE}\")))\n\
             def server(input, output, session):\n    \
             clicks = reactive.value(0)\n    ticks = [0]\n    \
             @reactive.effect\n    @reactive.event(input.more)\n    def _():\n        clicks.set(clicks.get() + 1)\n    \
             @render.text\n    def count():\n        return str(clicks.get())\n    \
             @reactive.effect\n    async def _():\n        reactive.invalidate_later(0.05)\n        ticks[0] += 1\n        \
             await session.send_custom_message('tick', ticks[0])\n\
             app = App(app_ui, server)\n"
        ),
    );
    folder.write("requirements.txt", "shiny\n");
}

#[derive(Clone, Copy)]
enum Language {
    R,
    Python,
}

/// A node with the app, and its path; everybody may see it.
async fn published(language: Language, more: &str) -> (Node, Node, Proxy, Publisher, String) {
    let (a, b) = two_nodes(more).await;
    let ca = Authority::new();
    let proxy = proxy_with(&[&a, &b], &ca, "").await;
    let key = a.command(&["key", "create", "--admin", "--name", "ann"]).await;
    let publisher = Publisher::new(&proxy, key);
    let app = Folder::new();
    let told = match language {
        Language::R => {
            app_in_r(&app);
            let manifest = app.path("manifest.json");
            publisher.runs(&["deploy", "manifest"], &[manifest.to_str().unwrap()]).await.ok()
        }
        Language::Python => {
            app_in_python(&app);
            publisher.runs(&["deploy", "shiny"], &[app.root().to_str().unwrap()]).await.ok()
        }
    };
    let guid = Publisher::guid(&told);
    open_to_all(&a, &guid, &publisher.key).await;
    (a, b, proxy, publisher, format!("/content/{guid}/"))
}

/// Clicks, and expects the app to have counted so many.
async fn clicks(browser: &mut Browser, count: u64) {
    browser.ask(json!({ "do": "click", "id": "more" })).await;
    counted(browser, count).await;
}

async fn counted(browser: &mut Browser, count: u64) {
    let code = format!("document.getElementById('count').textContent.trim() === '{count}'");
    browser.ask(json!({ "do": "until", "code": code })).await;
}

/// Expects that every tick came, once, in order; how many.
async fn ticked(browser: &mut Browser) -> u64 {
    let ticks = browser.ask(json!({ "do": "value", "code": "window.ticks" })).await;
    let ticks: Vec<u64> = ticks["value"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
    let expected: Vec<u64> = (1..=ticks.len() as u64).collect();
    assert_eq!(ticks, expected);
    expected.len() as u64
}

async fn more_ticks(browser: &mut Browser, than: u64) {
    let code = format!("window.ticks.length > {than}");
    browser.ask(json!({ "do": "until", "code": code })).await;
}

/// The app goes on through these seconds without a connection, and through the death of the proxy.
async fn goes_on(language: Language, seconds: u64) {
    let (_a, _b, mut proxy, _publisher, path) = published(language, "").await;
    let link = Link::to(proxy.web()).await;
    let folder = Folder::new();
    let mut browser = Browser::open_at(&folder, &format!("https://localhost:{}{path}", link.address.port())).await;
    counted(&mut browser, 0).await;
    clicks(&mut browser, 1).await;
    clicks(&mut browser, 2).await;
    let before = ticked(&mut browser).await;

    link.cut();
    // What is clicked meanwhile is not lost.
    browser.ask(json!({ "do": "click", "id": "more" })).await;
    tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
    assert!(link.refused() > 0, "it was tried");
    let hint = browser.ask(json!({ "do": "value", "code": "document.getElementById('bowline-hint') !== null" })).await;
    assert_eq!(hint["value"], true);
    link.mend();
    counted(&mut browser, 3).await;
    more_ticks(&mut browser, before + seconds * 10).await;
    let before = ticked(&mut browser).await;
    let hint = browser.ask(json!({ "do": "value", "code": "document.getElementById('bowline-hint') === null" })).await;
    assert_eq!(hint["value"], true);

    proxy.killed_and_started().await;
    clicks(&mut browser, 4).await;
    more_ticks(&mut browser, before + 10).await;
    let before = ticked(&mut browser).await;

    // The other proxy of the pair takes the address over.
    let other = proxy.twin("other").await;
    link.lead_to(other.web());
    proxy.signal(rustix::process::Signal::KILL);
    clicks(&mut browser, 5).await;
    more_ticks(&mut browser, before + 10).await;
    ticked(&mut browser).await;
    let seen = browser.ask(json!({ "do": "value", "code": "window.lost" })).await;
    assert_eq!(seen["value"], Value::from(0), "Shiny noticed nothing");
    browser.close().await;
}

#[test]
fn an_r_session_goes_on_after_a_break_after_the_proxys_death_and_by_the_other_proxy() {
    within(240, goes_on(Language::R, 3));
}

#[test]
fn a_python_session_goes_on_after_a_break_after_the_proxys_death_and_by_the_other_proxy() {
    within(240, goes_on(Language::Python, 3));
}

#[test]
#[ignore = "long: `make test-all` runs it"]
fn an_r_session_goes_on_after_thirty_seconds_without_a_network() {
    within(300, goes_on(Language::R, 30));
}

#[test]
#[ignore = "long: `make test-all` runs it"]
fn a_python_session_goes_on_after_thirty_seconds_without_a_network() {
    within(300, goes_on(Language::Python, 30));
}

/// Messages of so many letters, of two and of four bytes each, come and go whole, over a line of this many bytes a second; 0: a
/// fast one.
async fn long_messages(letters: u64, rate: usize) {
    let text = "library(shiny)\n\
        ui <- fluidPage(textOutput('count'), textOutput('got'), tags$script(HTML(\"\
        window.lost = 0; window.big = ''; $(document).on('shiny:connected', function() { \
        Shiny.addCustomMessageHandler('big', function(m) { window.big = m; }); }); \
        $(document).on('shiny:disconnected', function() { window.lost += 1; });\")))\n\
        server <- function(input, output, session) {\n  output$count <- renderText('0')\n  \
        observeEvent(input$size, session$sendCustomMessage('big', strrep('\\u00e4\\U0001f600', input$size)))\n  \
        output$got <- renderText(paste('got', nchar(input$long)))\n}\nshinyApp(ui, server)\n";
    let (a, b, _, path) = published_r(text, "").await;
    let proxy = proxy_with(&[&a, &b], &Authority::new(), "").await;
    let link = Link::to(proxy.web()).await;
    let folder = Folder::new();
    let mut browser = Browser::open_at(&folder, &format!("https://localhost:{}{path}", link.address.port())).await;
    counted(&mut browser, 0).await;
    link.slow(rate);
    let ask = format!("Shiny.setInputValue('size', {letters})");
    browser.ask(json!({ "do": "value", "code": ask })).await;
    let whole = format!("window.big.length === {} && window.big === '\u{e4}\u{1f600}'.repeat({letters})", 3 * letters);
    patient(&mut browser, &whole).await;
    let say = format!("Shiny.setInputValue('long', '\u{1f600}\u{e4}'.repeat({letters}))");
    browser.ask(json!({ "do": "value", "code": say })).await;
    let whole = format!("document.getElementById('got').textContent === 'got {}'", 2 * letters);
    patient(&mut browser, &whole).await;
    let seen =
        browser.ask(json!({ "do": "value", "code": "[window.lost, performance.getEntriesByType('resource').length]" }));
    assert_eq!(seen.await["value"][0], 0, "Shiny noticed nothing");
    let again = metrics(&a).await.value("bowline_node_session_resumes_total", &[("outcome", "resumed")])
        + metrics(&b).await.value("bowline_node_session_resumes_total", &[("outcome", "resumed")]);
    assert_eq!(again, 0.0, "nobody took the line for dead");
    browser.close().await;
}

/// Expects this to be true within minutes.
async fn patient(browser: &mut Browser, code: &str) {
    let mut value = Value::Null;
    for _ in 0..300 {
        value = browser.ask(json!({ "do": "value", "code": code })).await["value"].take();
        if value == true {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    panic!("{code}: {value}");
}

#[test]
fn long_messages_come_and_go_whole() {
    within(120, long_messages(100_000, 0));
}

#[test]
#[ignore = "long: `make test-all` runs it"]
fn a_slow_line_is_no_dead_one_however_long_a_message_is() {
    within(400, long_messages(400_000, 40_000));
}

/// Nodes with an app of this text of R, and its path; everybody may see it.
async fn published_r(text: &str, settings: &str) -> (Node, Node, Publisher, String) {
    let a = Node::start("a", &format!("[content]\n{settings}")).await;
    let b = a.beside("b").await;
    let ca = Authority::new();
    let proxy = proxy_with(&[&a, &b], &ca, "").await;
    let key = a.command(&["key", "create", "--admin", "--name", "ann"]).await;
    let publisher = Publisher::new(&proxy, key);
    let app = Folder::new();
    bundle_of_r(&app, text.to_owned());
    let told = publisher.runs(&["deploy", "manifest"], &[app.path("manifest.json").to_str().unwrap()]).await.ok();
    let guid = Publisher::guid(&told);
    open_to_all(&a, &guid, &publisher.key).await;
    (a, b, publisher, format!("/content/{guid}/"))
}

async fn metrics(node: &Node) -> Metrics {
    Metrics::parse(get(&node.address, "/metrics").await.text())
}

async fn sessions(node: &Node, state: &str) -> f64 {
    metrics(node).await.value("bowline_node_sessions", &[("state", state)])
}

/// What a browser would send of the cookies of an answer.
fn cookies(of: &Response) -> String {
    let all = of.fields.all("set-cookie");
    all.map(|cookie| cookie.split(';').next().unwrap()).collect::<Vec<_>>().join("; ")
}

/// A page as a browser asks for it.
async fn page(node: &Node, path: &str) -> Response {
    eventually("the page", async || {
        Some(get_as(&node.address, path, &[("accept", "text/html")]).await).filter(|seen| seen.status == 200)
    })
    .await
}

/// A websocket of the page's script.
async fn script(node: &Node, path: &str, query: &str, fields: &[(&str, &str)]) -> Socket {
    let all = [&[("sec-websocket-protocol", "bowline.resume.1")][..], fields].concat();
    Socket::open(Client::tcp(&node.address).await, &format!("{path}websocket/{query}"), &all).await
}

async fn says(socket: &mut Socket) -> String {
    let frame = patiently("a frame", socket.next()).await.expect("a frame before the end");
    String::from_utf8(frame.payload).unwrap()
}

const INIT: &str = r#"m{"method":"init","data":{}}"#;

#[test]
fn a_session_is_for_the_browser_and_the_person_that_began_it() {
    within(120, async {
        let app = "library(shiny)\nserver <- function(input, output, session) {\n  \
                   observeEvent(input$say, session$sendCustomMessage('said', input$say))\n}\n\
                   shinyApp(fluidPage('Hello'), server)\n";
        let (a, b, publisher, path) = published_r(app, "").await;
        let seen = page(&a, &path).await;
        let cookies = cookies(&seen);
        assert!(cookies.contains("bowline_resume=") && cookies.contains("bowline_worker="), "{cookies}");
        assert!(seen.fields.all("set-cookie").all(|c| c.contains("HttpOnly") && c.contains(&format!("Path={path}"))));
        let own = [("cookie", cookies.as_str())];
        let mut socket = script(&a, &path, "", &own).await;
        assert_eq!(socket.head.fields.get("sec-websocket-protocol"), Some("bowline.resume.1"));
        let begun = says(&mut socket).await;
        let (id, hold) = begun.strip_prefix('s').unwrap().split_once(' ').unwrap();
        assert_eq!((id.len(), hold), (32, "60"), "{begun}");
        socket.send(&Frame::text(INIT)).await;
        let mut got = 0;
        loop {
            let told = says(&mut socket).await;
            got += u64::from(told.starts_with('m'));
            if told.starts_with("m{\"config\"") {
                break;
            }
        }
        drop(socket);
        eventually("the session to wait", async || (sessions(&a, "held").await == 1.0).then_some(())).await;
        let guid = path.split('/').nth(2).unwrap();
        let counted = metrics(&a).await;
        let of = |state| counted.value("bowline_node_content_sessions", &[("content", guid), ("state", state)]);
        assert_eq!((of("live"), of("held")), (0.0, 1.0));
        counted.strict();

        let query = format!("?bowline_resume={id}.{got}");
        let authorization = format!("Key {}", publisher.key);
        let other = "bowline_resume=00000000000000000000000000000000";
        for (node, query, fields) in [
            (&a, &query, &[][..]),
            (&a, &query, &[("cookie", other)]),
            (&a, &query, &[own[0], ("authorization", &authorization)]),
            (&a, &format!("?bowline_resume={}.{got}", "0".repeat(32)), &own),
            (&b, &query, &own),
        ] {
            let mut socket = script(node, &path, query, fields).await;
            assert_eq!(says(&mut socket).await, "g", "{fields:?}");
        }
        assert_eq!(metrics(&a).await.value("bowline_node_session_resumes_total", &[("outcome", "gone")]), 4.0);

        // Whose it is goes on, twice: the second time while the first connection is still open.
        let mut first = script(&a, &path, &query, &own).await;
        assert_eq!(says(&mut first).await, "r1");
        first.send(&Frame::text(r#"m{"method":"update","data":{"say":"one"}}"#)).await;
        while !says(&mut first).await.contains("\"said\":\"one\"") {}
        let mut second = script(&a, &path, &query, &own).await;
        assert_eq!(says(&mut second).await, "r2");
        while !says(&mut second).await.contains("\"said\":\"one\"") {}
        patiently("the end of the first", async { while first.next().await.is_some() {} }).await;
        assert_eq!((sessions(&a, "live").await, sessions(&a, "held").await), (1.0, 0.0));

        // An end in order is one.
        second.send(&Frame::close(1000)).await;
        loop {
            let frame = patiently("the answer", second.next()).await.expect("a Close frame");
            if frame.opcode == CLOSE {
                assert_eq!(frame.close_code(), Some(1000));
                break;
            }
        }
        eventually("nobody", async || (sessions(&a, "live").await + sessions(&a, "held").await == 0.0).then_some(()))
            .await;
        eventually("no connection", async || {
            (metrics(&a).await.value("bowline_node_worker_connections", &[]) == 0.0).then_some(())
        })
        .await;

        // Who does not speak our protocol has a plain websocket.
        let target = format!("{path}websocket/");
        let mut plain = Socket::open(Client::tcp(&a.address).await, &target, &[]).await;
        assert!(plain.head.fields.get("sec-websocket-protocol").is_none());
        assert!(plain.head.fields.all("set-cookie").any(|c| c.starts_with("bowline_worker=")), "its process is known");
        plain.send(&Frame::text(&INIT[1..])).await;
        while !says(&mut plain).await.starts_with("{\"config\"") {}
        assert_eq!(sessions(&a, "live").await, 1.0);
        let of = [("content", guid), ("state", "live")];
        assert_eq!(metrics(&a).await.sum("bowline_node_content_sessions", &of), 1.0);
        drop(plain);
        eventually("no series of content without sessions", async || {
            (!metrics(&a).await.text.contains(guid)).then_some(())
        })
        .await;
        eventually("nobody", async || (sessions(&a, "live").await + sessions(&a, "held").await == 0.0).then_some(()))
            .await;
    });
}

/// The next word; of a message in parts all of it.
async fn whole(socket: &mut Socket) -> String {
    let (mut text, mut is_part) = (String::new(), false);
    loop {
        let told = says(socket).await;
        match told.strip_prefix('m') {
            _ if told == "k" => is_part = true,
            Some(part) => {
                text.push_str(part);
                if !std::mem::take(&mut is_part) {
                    return format!("m{text}");
                }
            }
            None => return told,
        }
    }
}

#[test]
fn a_browser_that_never_comes_back_costs_so_much_and_no_more() {
    within(120, async {
        // Each message has 100 kB, and a number.
        let app = "library(shiny)\nserver <- function(input, output, session) {\n  n <- 0\n  observe({\n    \
                   invalidateLater(1)\n    n <<- n + 1\n    \
                   session$sendCustomMessage('number', list(n, strrep('x', 1e5)))\n  })\n}\n\
                   shinyApp(fluidPage('Hello'), server)\n";
        let (a, _b, _, path) = published_r(app, "session_hold = \"8s\"\nsession_bytes_max = \"500KiB\"\n").await;
        let seen = page(&a, &path).await;
        let own = cookies(&seen);
        let own = [("cookie", own.as_str())];
        let mut socket = script(&a, &path, "", &own).await;
        let begun = says(&mut socket).await;
        let id = begun[1..33].to_owned();
        socket.send(&Frame::text(INIT)).await;
        let (mut got, mut numbers) = (0, Vec::new());
        let number = |told: &str| {
            let at = told.find("\"number\":[")? + "\"number\":[".len();
            told[at..].split(',').next()?.parse::<u64>().ok()
        };
        while numbers.len() < 3 {
            let told = whole(&mut socket).await;
            got += u64::from(told.starts_with('m'));
            numbers.extend(number(&told));
        }
        let resident = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", a.pid())).unwrap();
            let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap().to_owned();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        let before = resident();
        drop(socket);
        eventually("the session to wait", async || (sessions(&a, "held").await == 1.0).then_some(())).await;
        // Time in which the app says some hundred times as much as is kept.
        tokio::time::sleep(std::time::Duration::from_secs(4)).await;
        let kept = metrics(&a).await.value("bowline_node_session_bytes", &[]);
        assert!(kept > 10_000.0, "{kept} bytes are kept for the browser");
        let after = resident();
        assert!(after < before + 10_000, "{before} KiB became {after}");

        let mut socket = script(&a, &path, &format!("?bowline_resume={id}.{got}"), &own).await;
        assert_eq!(says(&mut socket).await, "r1");
        while numbers.len() < 100 {
            let told = whole(&mut socket).await;
            got += u64::from(told.starts_with('m'));
            numbers.extend(number(&told));
            // Who says nothing is sent no more than is kept.
            socket.send(&Frame::text(&format!("a{got}"))).await;
        }
        let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
        assert_eq!(numbers, expected, "nothing was lost while the app had to wait");

        drop(socket);
        let cause = [("cause", "timeout")];
        eventually("the end", async || {
            (metrics(&a).await.value("bowline_node_session_holds_ended_total", &cause) == 1.0).then_some(())
        })
        .await;
        let mut late = script(&a, &path, &format!("?bowline_resume={id}.{got}"), &own).await;
        assert_eq!(says(&mut late).await, "g");
    });
}

#[test]
fn a_session_that_says_nothing_ends_in_order() {
    within(120, async {
        let app = "library(shiny)\nshinyApp(fluidPage('Hello'), function(input, output, session) {})\n";
        let (a, _b, _, path) = published_r(app, "connection_timeout = \"2s\"\n").await;
        let own = cookies(&page(&a, &path).await);
        let mut resumable = script(&a, &path, "", &[("cookie", &own)]).await;
        let mut plain = Socket::open(Client::tcp(&a.address).await, &format!("{path}websocket/"), &[]).await;
        for socket in [&mut resumable, &mut plain] {
            let code = loop {
                let frame = patiently("the end", socket.next()).await.expect("a Close frame");
                if frame.opcode == CLOSE {
                    break frame.close_code();
                }
            };
            assert_eq!(code, Some(1000), "a page stays as it is: nobody looks at it");
            socket.send(&Frame::close(1000)).await;
        }
        eventually("nobody", async || (sessions(&a, "live").await + sessions(&a, "held").await == 0.0).then_some(()))
            .await;
    });
}

#[test]
fn a_node_that_leaves_keeps_its_sessions_and_takes_no_new_ones() {
    within(240, async {
        let (a, b, proxy, _publisher, path) = published(Language::R, "").await;
        let link = Link::to(proxy.web()).await;
        let url = format!("https://localhost:{}{path}", link.address.port());
        let folders = [Folder::new(), Folder::new()];
        let mut browser = Browser::open_at(&folders[0], &url).await;
        clicks(&mut browser, 1).await;
        let is_at_a = proxy.backend("n0").await["sessions"] == 1;
        let (mut leaving, there, other) = if is_at_a { (a, "n0", "n1") } else { (b, "n1", "n0") };
        leaving.signal(rustix::process::Signal::TERM);
        proxy.until_health(there, "leaving").await;

        clicks(&mut browser, 2).await;
        link.cut();
        browser.ask(json!({ "do": "until", "code": "document.getElementById('bowline-hint') !== null" })).await;
        link.mend();
        clicks(&mut browser, 3).await;
        let mut second = Browser::open_at(&folders[1], &url).await;
        clicks(&mut second, 1).await;
        assert_eq!(
            (&proxy.backend(there).await["sessions"], &proxy.backend(other).await["sessions"]),
            (&1.into(), &1.into())
        );
        // Who loads the page anew begins anew, elsewhere.
        browser.ask(json!({ "do": "visit", "url": url })).await;
        counted(&mut browser, 0).await;
        clicks(&mut browser, 1).await;
        assert!(leaving.exit().await.success(), "the last session's end is the node's");
        clicks(&mut browser, 2).await;
        proxy.until_health(there, "down").await;
        browser.close().await;
        second.close().await;
    });
}

#[test]
fn a_node_that_leaves_waits_for_a_lost_browser_as_long_as_others_do() {
    within(120, async {
        let app = "library(shiny)\nshinyApp(fluidPage('Hello'), function(input, output, session) {})\n";
        let (mut a, _b, _, path) = published_r(app, "session_hold = \"3s\"\n").await;
        let own = cookies(&page(&a, &path).await);
        let own = [("cookie", own.as_str())];
        let mut socket = script(&a, &path, "", &own).await;
        let begun = says(&mut socket).await;
        let id = begun.strip_prefix('s').unwrap().split(' ').next().unwrap();
        a.signal(rustix::process::Signal::TERM);
        eventually("the word that it leaves", async || {
            (get(&a.address, "/__ping__").await.status == 503).then_some(())
        })
        .await;
        drop(socket);
        eventually("one to wait", async || (sessions(&a, "held").await == 1.0).then_some(())).await;
        let mut socket = script(&a, &path, &format!("?bowline_resume={id}.0"), &own).await;
        assert!(says(&mut socket).await.starts_with('r'), "it is still there");
        drop(socket);
        assert!(a.exit().await.success(), "nobody came back in time");
    });
}

#[test]
fn what_belongs_to_a_session_is_asked_of_its_own_process_whatever_other_tabs_have() {
    within(120, async {
        let app = "library(shiny)\nme <- paste(sample(1e9, 1))\n\
                   server <- function(input, output, session) {\n  \
                   output$get <- downloadHandler('me.txt', function(file) cat(me, file = file))\n}\n\
                   shinyApp(fluidPage(downloadLink('get', 'Get')), server)\n";
        let (a, _b, publisher, path) = published_r(app, "").await;
        let begun = async || {
            let own = cookies(&page(&a, &path).await);
            let mut socket = script(&a, &path, "", &[("cookie", &own)]).await;
            assert!(says(&mut socket).await.starts_with('s'));
            let init = r#"m{"method":"init","data":{".clientdata_output_get_hidden":false}}"#;
            socket.send(&Frame::text(init)).await;
            let token = loop {
                let told = says(&mut socket).await;
                if let Some((_, rest)) = told.split_once("\"sessionId\":\"") {
                    break rest.split('"').next().unwrap().to_owned();
                }
            };
            (own, socket, token)
        };
        let (old, _first, token) = begun().await;
        let get = async |token: &str, own: &str| {
            let target = format!("{path}session/{token}/download/get?w=");
            eventually("the file", async || {
                let got = get_as(&a.address, &target, &[("cookie", own)]).await;
                (got.status == 200).then_some(got)
            })
            .await
        };
        let me = get(&token, &old).await.text();
        // Set up anew: the next page gets another process, and so does the browser's cookie.
        let authorization = format!("Key {}", publisher.key);
        let fields = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        let at = format!("/__api__/v1{}", path.trim_end_matches('/'));
        let set = Client::tcp(&a.address).await.request("PATCH", &at, &fields, b"{\"read_timeout\": 99}").await;
        assert_eq!(set.status, 200, "{}", set.text());
        let (new, _second, other) = eventually("another process", async || {
            let (new, socket, other) = begun().await;
            (get(&other, &new).await.text() != me).then_some((new, socket, other))
        })
        .await;
        let seen = get(&token, &new).await;
        assert_eq!((seen.text(), seen.fields.has("set-cookie")), (me, false), "the first tab's");
        assert_ne!(get(&other, &old).await.text(), get(&token, &new).await.text());
    });
}

#[test]
fn what_is_to_run_always_runs_and_ends_when_its_content_is_removed() {
    within(180, async {
        let app = "library(shiny)\nshinyApp(fluidPage('Hello'), function(input, output, session) {})\n";
        let (a, b, publisher, path) = published_r(app, "idle_timeout = \"1s\"\n").await;
        let guid = path.trim_matches('/').trim_start_matches("content/").to_owned();
        let authorization = format!("Key {}", publisher.key);
        let fields = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        let at = format!("/__api__/v1/content/{guid}");
        let change = async |method: &str, body: &[u8]| {
            Client::tcp(&a.address).await.request(method, &at, &fields, body).await.status
        };
        let workers = async |node: &Node| metrics(node).await.value("bowline_node_workers", &[]);
        let starts =
            async |node: &Node| metrics(node).await.value("bowline_node_worker_starts_total", &[("outcome", "ready")]);
        assert_eq!(change("PATCH", b"{\"min_processes\": 2}").await, 200);
        for node in [&a, &b] {
            eventually("two processes on each node", async || (workers(node).await == 2.0).then_some(())).await;
        }
        let before = starts(&a).await;
        // A title is no reason to begin anew.
        assert_eq!(change("PATCH", b"{\"title\": \"Another\"}").await, 200);
        page(&a, &path).await;
        let children = std::fs::read_dir("/proc/").unwrap().filter_map(|entry| {
            let stat = std::fs::read_to_string(entry.ok()?.path().join("stat")).ok()?;
            let (pid, rest) = stat.split_once(' ')?;
            let parent = rest.rsplit_once(')')?.1.split_whitespace().nth(1)?;
            (parent == a.pid().to_string()).then(|| pid.parse::<i32>().unwrap())
        });
        let children: Vec<i32> = children.collect();
        assert!(children.len() >= 2, "{children:?}");
        assert_eq!(starts(&a).await, before, "nothing began since");
        let first = rustix::process::Pid::from_raw(children[0]).unwrap();
        rustix::process::kill_process(first, rustix::process::Signal::KILL).unwrap();
        eventually("another one", async || {
            (starts(&a).await == before + 1.0 && workers(&a).await == 2.0).then_some(())
        })
        .await;

        assert_eq!(change("DELETE", b"").await, 204);
        for node in [&a, &b] {
            eventually("nothing to run", async || (workers(node).await == 0.0).then_some(())).await;
        }
    });
}

#[test]
fn who_opens_a_slow_app_sees_that_it_starts() {
    within(180, async {
        let app = "library(shiny)\nSys.sleep(4)\nshinyApp(fluidPage(h2('Here it is', id = 'here')), function(input, output, session) {})\n";
        let (a, b, _, path) = published_r(app, "").await;
        // Whichever has not begun one.
        let workers = metrics(&a).await.value("bowline_node_workers", &[]);
        let node = if workers == 0.0 { &a } else { &b };
        let browser = [("accept", "text/html"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        let (shown, program) = tokio::join!(get_as(&node.address, &path, &browser), get_as(&node.address, &path, &[]));
        assert_eq!((shown.status, shown.fields.get("cache-control")), (503, Some("no-store")));
        assert!(shown.fields.has("retry-after") && shown.text().contains("bowline-starting"), "{}", shown.text());
        assert!(program.status == 200 && program.text().contains("Here it is"), "a program waits");

        let other = if workers == 0.0 { &b } else { &a };
        let stale = format!("http://{}{path}", other.address);
        let folder = Folder::new();
        let mut browser = Browser::open_at(&folder, &stale).await;
        browser.ask(json!({ "do": "until", "code": "document.getElementById('here') !== null" })).await;
        browser.close().await;
    });
}

#[test]
fn uploads_reach_a_sessions_own_process_when_its_content_is_set_up_anew() {
    within(240, async {
        let (a, _b) = two_nodes("").await;
        let ca = Authority::new();
        let proxy = proxy_with(&[&a], &ca, "").await;
        let key = a.command(&["key", "create", "--admin", "--name", "ann"]).await;
        let publisher = Publisher::new(&proxy, key);
        let app = Folder::new();
        shiny_app(&app);
        let told = publisher.runs(&["deploy", "shiny"], &[app.root().to_str().unwrap()]).await.ok();
        let guid = Publisher::guid(&told);
        open_to_all(&a, &guid, &publisher.key).await;
        let folder = Folder::new();
        let path = format!("/content/{guid}/");
        let mut browser = Browser::open(&folder, &format!("{}{path}", crate::packages::base(&proxy))).await;
        browser.ask(json!({ "do": "fill", "name": "Ada", "n": 42 })).await;
        let before = browser.ask(json!({ "do": "who" })).await["pid"].clone();

        let authorization = format!("Key {}", publisher.key);
        let fields = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        let mut client = Client::tcp(&a.address).await;
        let at = format!("/__api__/v1{path}");
        let changed = client.request("PATCH", at.trim_end_matches('/'), &fields, b"{\"idle_timeout\": 77}").await;
        assert_eq!(changed.status, 200);
        eventually("a process that is set up anew", async || {
            page(&a, &path).await;
            (metrics(&a).await.value("bowline_node_workers", &[]) == 2.0).then_some(())
        })
        .await;
        let file = folder.write("upload.bin", vec![7; 300_000]);
        let uploaded = browser.ask(json!({ "do": "upload", "file": file })).await;
        assert!(uploaded["upload_info"].as_str().unwrap().starts_with("upload.bin: 300000 bytes"), "{uploaded}");
        let table = browser.ask(json!({ "do": "download" })).await;
        assert_eq!(table["text"].as_str().unwrap().lines().count(), 43);
        assert_eq!(browser.ask(json!({ "do": "who" })).await["pid"], before);
        browser.close().await;
    });
}

/// The next word that is no message of the app's.
async fn answers(socket: &mut Socket) -> String {
    loop {
        let told = says(socket).await;
        if !told.starts_with('m') {
            return told;
        }
    }
}

#[test]
fn parts_of_long_messages_take_no_more_memory_than_there_is_to_be() {
    within(120, async {
        let app = "library(shiny)\nshinyApp(fluidPage('Hello'), function(input, output, session) {})\n";
        let (a, _b, _, path) = published_r(app, "sessions_bytes_max = \"1MiB\"\n").await;
        let own = cookies(&page(&a, &path).await);
        let own = [("cookie", own.as_str())];
        // Beside a few words of the app's.
        let kept = async || metrics(&a).await.value("bowline_node_session_bytes", &[]);
        let keeps = async |bytes: f64| {
            let kept = kept().await;
            assert!((kept - bytes).abs() < 1_000.0, "{kept} bytes are kept, and not {bytes}");
        };
        let part = Frame::text(&format!("m{}", "x".repeat(300_000)));
        let mut first = script(&a, &path, "", &own).await;
        let id = says(&mut first).await[1..33].to_owned();
        let mut other = script(&a, &path, "", &own).await;
        says(&mut other).await;
        let sends = async |socket: &mut Socket| {
            socket.send(&Frame::text("k")).await;
            socket.send(&part).await;
        };
        for n in 1..=4 {
            let socket = if n % 2 == 0 { &mut other } else { &mut first };
            sends(socket).await;
            assert_eq!(answers(socket).await, "a0");
            keeps(f64::from(n) * 300_000.0).await;
        }
        // What comes in one piece goes on; parts wait for room, which there is when the first one has a new connection.
        let mut third = script(&a, &path, "", &own).await;
        says(&mut third).await;
        third.send(&Frame::text("p")).await;
        assert_eq!(answers(&mut third).await, "q");
        sends(&mut other).await;
        other.send(&Frame::text("p")).await;
        let mut first = script(&a, &path, &format!("?bowline_resume={id}.0"), &own).await;
        assert_eq!(says(&mut first).await, "r0");
        assert_eq!(answers(&mut other).await, "a0");
        assert_eq!(answers(&mut other).await, "q");
        keeps(900_000.0).await;

        // Where nobody finds room for too long, one is told so, and the other goes on.
        sends(&mut first).await;
        assert_eq!(answers(&mut first).await, "a0");
        sends(&mut first).await;
        let ends = async |socket: &mut Socket| {
            while let Some(frame) = socket.next().await {
                if frame.opcode == CLOSE {
                    return frame.close_code();
                }
            }
            None
        };
        let (code, left) = tokio::select! {
            code = ends(&mut first) => (code, &mut other),
            code = ends(&mut other) => (code, &mut first),
        };
        assert_eq!(code, Some(1009));
        left.send(&Frame::text("p")).await;
        while answers(left).await != "q" {}
        assert!(kept().await > 500_000.0);
        drop((first, other));
        eventually("nothing to be kept", async || (kept().await < 1_000.0).then_some(())).await;
    });
}
