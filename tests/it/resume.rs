//! Sessions that outlive connections: what an app knows only in its process is there after a break.

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::content::{Publisher, open_to_all, two_nodes};
use crate::harness::{Authority, Folder, Link, Node, Proxy, within};
use crate::packages::proxy_with;

/// Counts what comes, and what the page sees of its connection.
const PAGE: &str = "window.ticks = []; window.lost = 0; \
    $(document).on('shiny:connected', function() { \
    Shiny.addCustomMessageHandler('tick', function(n) { window.ticks.push(n); }); }); \
    $(document).on('shiny:disconnected', function() { window.lost += 1; });";

/// An app that counts clicks in its session only, and ticks.
fn app_in_r(folder: &Folder) {
    folder.write(
        "app.R",
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
    ticked(&mut browser).await;
    let seen = browser.ask(json!({ "do": "value", "code": "window.lost" })).await;
    assert_eq!(seen["value"], Value::from(0), "Shiny noticed nothing");
    browser.close().await;
}

#[test]
fn an_r_session_goes_on_after_a_break_and_after_the_proxys_death() {
    within(240, goes_on(Language::R, 3));
}

#[test]
fn a_python_session_goes_on_after_a_break_and_after_the_proxys_death() {
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
