//! Every kind of app, with its own framework: published by the client people use, through the TLS proxy before two nodes, and
//! used in a browser below its prefix.

use serde_json::json;

use crate::browser::Browser;
use crate::content::{Publisher, open_to_all, two_nodes_with};
use crate::harness::{Authority, Client, Folder, Node, Output, Proxy, eventually_in, get_as, run, script, within};
use crate::packages::{base, proxy_with};

/// Environments are large and made on each node.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(150);

/// Two nodes behind the proxy, and who publishes there.
struct Stage {
    nodes: [Node; 2],
    proxy: Proxy,
    publisher: Publisher,
    folder: Folder,
}

impl Stage {
    /// `wheels`: the folder of those that what is published requires.
    async fn set(wheels: Option<&str>, more: &str) -> Self {
        let (a, b) = match wheels {
            Some(wheels) => two_nodes_with(wheels, more).await,
            None => {
                let a = Node::start("a", more).await;
                let b = a.beside("b").await;
                (a, b)
            }
        };
        let ca = Authority::new();
        let proxy = proxy_with(&[&a, &b], &ca, "").await;
        let key = a.command(&["key", "create", "--admin", "--name", "ann"]).await;
        let publisher = Publisher::new(&proxy, key);
        Self { nodes: [a, b], proxy, publisher, folder: Folder::new() }
    }

    /// `rsconnect deploy KIND` of these files.
    async fn deploy(&self, kind: &str, files: &[(&str, &str)], more: &[&str]) -> Output {
        let app = Folder::new();
        files.iter().for_each(|(name, text)| drop(app.write(name, text)));
        let mut at = app.root().to_str().unwrap().to_owned();
        if kind == "voila" {
            at = format!("{at}/{}", files[0].0);
        }
        self.publisher.runs(&["deploy", kind], &[more, &[at.as_str()]].concat()).await
    }

    /// The same, for everybody to use, once both nodes show it.
    async fn publish(&self, kind: &str, files: &[(&str, &str)]) -> String {
        let guid = Publisher::guid(&self.deploy(kind, files, &[]).await.ok());
        self.show(&guid).await;
        guid
    }

    async fn show(&self, guid: &str) {
        open_to_all(&self.nodes[0], guid, &self.publisher.key).await;
        for node in &self.nodes {
            eventually_in(PATIENCE, "the page on both nodes", async || {
                let seen = get_as(&node.address, &format!("/content/{guid}/"), &[]).await;
                [200, 302].contains(&seen.status).then_some(())
            })
            .await;
        }
    }

    async fn set_up(&self, guid: &str, settings: &str) {
        let key = format!("Key {}", self.publisher.key);
        let fields = [("authorization", &*key), ("content-type", "application/json")];
        let mut client = Client::tcp(&self.nodes[0].address).await;
        let path = format!("/__api__/v1/content/{guid}");
        let answer = client.request("PATCH", &path, &fields, settings.as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        // Nodes ask for what others change twice a second; who comes before gets a process of the setting before.
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    }

    /// How long the first request takes that begins a process, with all that it needs there already.
    async fn cold(&self, kind: &str, guid: &str) {
        // What was set up anew is begun anew.
        self.set_up(guid, "{\"read_timeout\": 59}").await;
        let path = format!("/content/{guid}/");
        let begun = std::time::Instant::now();
        let seen = get_as(&self.nodes[1].address, &path, &[]).await;
        assert!([200, 302].contains(&seen.status), "{kind}: {}", seen.text());
        println!("{kind}: {} ms to the first byte of a process that is begun for it", begun.elapsed().as_millis());
    }

    fn url(&self, guid: &str) -> String {
        format!("{}/content/{guid}/", base(&self.proxy))
    }

    async fn browser(&self, name: &str, url: &str) -> Tab {
        let folder = Folder::new();
        let mut browser = Browser::start(&folder);
        browser.ask(json!({ "do": "visit", "url": url })).await;
        Tab { browser, _folder: folder, name: name.to_owned() }
    }

    /// Opens it in a browser.
    async fn open(&self, guid: &str) -> Tab {
        self.browser(guid, &self.url(guid)).await
    }
}

/// What is missing without a loss: Gradio's pages name a file at the top of the server, where only Gradio alone would have one;
/// rmarkdown's name scripts for Internet Explorer 8, which Debian has as links that its Shiny does not follow.
const KNOWN: [&str; 2] = ["404 /manifest.json", "/bootstrap-3.3.5/shim/"];

/// A page in a browser of its own.
struct Tab {
    browser: Browser,
    _folder: Folder,
    name: String,
}

impl Tab {
    async fn see(&mut self, text: &str) -> String {
        let seen = self.browser.ask(json!({ "do": "see", "text": text })).await;
        seen["text"].as_str().unwrap().to_owned()
    }

    async fn press(&mut self, name: &str) {
        self.browser.ask(json!({ "do": "press", "name": name })).await;
    }

    /// Which process said `pressed N times by PROCESS`.
    async fn process(&mut self, pressed: u32) -> String {
        let text = self.see(&format!("pressed {pressed} times by \\d+")).await;
        let at = text.rfind(" by ").unwrap() + 4;
        text[at..].chars().take_while(char::is_ascii_digit).collect()
    }

    /// Closes it. Nothing was asked of the server in vain, and each websocket was one below the prefix.
    async fn closes_sound(mut self, sockets: bool) {
        let told = self.browser.ask(json!({ "do": "trouble" })).await;
        let failed: Vec<&str> = told["failed"].as_array().unwrap().iter().filter_map(|path| path.as_str()).collect();
        let failed: Vec<_> =
            failed.into_iter().filter(|path| !KNOWN.iter().any(|known| path.contains(known))).collect();
        // The page that a browser sees until the first process has begun.
        let failed: Vec<_> =
            failed.into_iter().filter(|path| !(path.starts_with("503 ") && path.ends_with('/'))).collect();
        assert!(failed.is_empty(), "{}: {failed:?}", self.name);
        let all: Vec<&str> = told["sockets"].as_array().unwrap().iter().filter_map(|path| path.as_str()).collect();
        assert_eq!(!all.is_empty(), sockets, "{}: {all:?}", self.name);
        assert!(all.iter().all(|path| path.starts_with("/content/")), "{all:?}");
        self.browser.close().await;
    }
}

const STREAMLIT: &str = "\
import random
import streamlit as st

@st.cache_resource
def own():
    return random.randrange(10**9)

if 'n' not in st.session_state:
    st.session_state.n = 0
if st.button('Press'):
    st.session_state.n += 1
st.write(f'pressed {st.session_state.n} times by {own()}')
file = st.file_uploader('A file')
if file:
    st.write(f'{len(file.getvalue())} bytes came')
";

#[test]
fn a_streamlit_app_is_used_by_several_at_processes_of_their_own() {
    within(400, async {
        let stage = Stage::set(Some("wheels-streamlit"), "").await;
        let guid = stage.publish("streamlit", &[("app.py", STREAMLIT), ("requirements.txt", "streamlit\n")]).await;
        stage.cold("python-streamlit", &guid).await;

        // Each browser gets a process as long as there may be more, and stays with it: whatever it asks goes there.
        stage.set_up(&guid, "{\"max_processes\": 3, \"load_factor\": 0.0}").await;
        let mut tabs = Vec::new();
        let mut processes = std::collections::HashSet::new();
        for _ in 0..2 {
            let mut tab = stage.open(&guid).await;
            let own = tab.process(0).await;
            tabs.push((tab, own.clone()));
            processes.insert(own);
        }
        assert_eq!(processes.len(), 2);
        let file = stage.folder.write("upload.bin", vec![7; 300_000]);
        for (mut tab, own) in tabs {
            for n in 1..=3 {
                tab.press("Press").await;
                assert_eq!(tab.process(n).await, own);
            }
            tab.browser.ask(json!({ "do": "choose", "file": file })).await;
            tab.see("300000 bytes came").await;
            tab.closes_sound(true).await;
        }

        // Pages of other sites get no connection.
        let upgrade = |origin| {
            let own = [("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-version", "13")];
            [&own[..], &[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="), ("origin", origin)]].concat()
        };
        let path = format!("/content/{guid}/_stcore/stream");
        for (origin, status) in [("https://evil.example", 403), ("null", 403), ("https://localhost", 101)] {
            let fields = [&upgrade(origin)[..], &[("host", "localhost")]].concat();
            assert_eq!(get_as(&stage.nodes[0].address, &path, &fields).await.status, status, "{origin}");
        }
    });
}

/// An app for Node.js that needs nothing, with what its publisher has to have.
fn nodejs<'a>(code: &'a str, package: &'a str) -> [(&'a str, &'a str); 3] {
    const LOCK: &str = "{\"name\": \"app\", \"lockfileVersion\": 3, \"packages\": {}}";
    [("package.json", package), ("package-lock.json", LOCK), ("app.js", code)]
}

const PACKAGE: &str = "{\"name\": \"app\", \"main\": \"app.js\"}";
const NODEJS: &str = "
const own = Math.floor(Math.random() * 1e9);
let n = 0;
require('node:http').createServer((request, response) => {
  if (request.url === '/exit') process.exit(3);
  if (request.url === '/press') n += 1;
  if (request.url === '/garbage') return request.socket.end('what is this?\\r\\n\\r\\n');
  response.setHeader('content-type', 'text/html');
  const page = `<button onclick=\"fetch('press').then(() => location.reload())\">Press</button>`;
  response.end(`<!doctype html><title>app</title><link rel=icon href=data:,>${page}<p>pressed ${n} times by ${own}</p>`);
}).listen(process.env.PORT);
";

#[test]
fn a_nodejs_app_runs_and_what_is_broken_is_told_to_whom_it_concerns() {
    within(300, async {
        let stage = Stage::set(None, "[content]\ninit_timeout = \"3s\"\n").await;
        let guid = stage.publish("nodejs", &nodejs(NODEJS, PACKAGE)).await;
        let mut tab = stage.open(&guid).await;
        let own = tab.process(0).await;
        for n in 1..=2 {
            tab.press("Press").await;
            assert_eq!(tab.process(n).await, own);
        }
        stage.cold("nodejs", &guid).await;

        // What is no HTTP is told to visitors as something they can read, and to the log as it was.
        let (node, path) = (&stage.nodes[0], format!("/content/{guid}/"));
        let fields = [("accept", "text/html")];
        let seen = get_as(&node.address, &format!("{path}garbage"), &fields).await;
        assert!(seen.status == 502 && seen.text().contains("does not answer"), "{} {}", seen.status, seen.text());
        // A process that ends is begun again for whoever asks next.
        let ask = async || get_as(&node.address, &path, &fields).await.text();
        let before = ask().await;
        assert!(before.contains("pressed 0 times"), "{before}");
        assert_eq!(get_as(&node.address, &format!("{path}exit"), &fields).await.status, 502);
        // Its end is known a moment later.
        let after = eventually_in(PATIENCE, "another process", async || {
            let after = ask().await;
            after.contains("pressed").then_some(after)
        })
        .await;
        assert!(after.contains("pressed 0 times") && after != before, "{before} {after}");
        tab.closes_sound(false).await;

        // Whatever is wrong with a new one, its publisher is told, and the old one stays.
        let again = ["--app-id", &guid];
        let requires = "{\"name\": \"app\", \"main\": \"app.js\", \"dependencies\": {\"express\": \"^5\"}}";
        for (code, package, words) in [
            ("throw new Error('no luck today');", PACKAGE, &["no luck today", "app.js:1"][..]),
            ("setInterval(() => {}, 1000);", PACKAGE, &["did not listen within 3s"]),
            ("require('express');", requires, &["package.json requires express", "Cannot find module 'express'"]),
        ] {
            let told = stage.deploy("nodejs", &nodejs(code, package), &again).await;
            let all = format!("{}{}", told.stdout, told.stderr);
            assert!(told.code != Some(0) && words.iter().all(|words| all.contains(words)), "{all}");
        }
        assert!(ask().await.contains("pressed 0 times"));
    });
}

const DASH: &str = "
import random
from dash import Dash, Input, Output, html
own = random.randrange(10**9)
app = Dash(__name__)
app.layout = html.Div([html.Button('Press', id='press'), html.P(id='said')])
@app.callback(Output('said', 'children'), Input('press', 'n_clicks'))
def said(n):
    return f'pressed {n or 0} times by {own}'
";
const BOKEH: &str = "
import random
from bokeh.io import curdoc
from bokeh.layouts import column
from bokeh.models import Button, Div
own, n = random.randrange(10**9), 0
def text():
    return f'pressed {n} times by {own}'
said, button = Div(text=text()), Button(label='Press')
def press():
    global n
    n += 1
    said.text = text()
button.on_click(press)
curdoc().add_root(column(button, said))
";
const PANEL: &str = "
import random
import panel as pn
pn.extension()
own = random.randrange(10**9)
button = pn.widgets.Button(name='Press')
said = pn.bind(lambda n: f'pressed {n} times by {own}', button.param.clicks)
pn.Column(button, pn.pane.Str(said)).servable()
";
const GRADIO: &str = "
import random
import gradio as gr
own = random.randrange(10**9)
with gr.Blocks() as demo:
    n = gr.State(0)
    button, said = gr.Button('Press'), gr.Markdown(f'pressed 0 times by {own}')
    button.click(lambda n: (n + 1, f'pressed {n + 1} times by {own}'), n, [n, said])
demo.launch(share=True, server_port=7860)
";
const VOILA: &str = "
import random
import ipywidgets as widgets
own, n = random.randrange(10**9), 0
said, button = widgets.Label(f'pressed 0 times by {own}'), widgets.Button(description='Press')
def press(_):
    global n
    n += 1
    said.value = f'pressed {n} times by {own}'
button.on_click(press)
display(widgets.VBox([button, said]))
";

/// Publishes an app of Python, uses it in a browser and closes that.
async fn is_used(stage: &Stage, kind: &str, name: &str, code: &str, requires: &str, sockets: bool) {
    let guid = stage.publish(kind, &[(name, code), ("requirements.txt", requires)]).await;
    stage.cold(kind, &guid).await;
    stage.set_up(&guid, "{\"max_processes\": 3, \"load_factor\": 0.0}").await;
    let mut tab = stage.open(&guid).await;
    let own = tab.process(0).await;
    for n in 1..=3 {
        tab.press("Press").await;
        assert_eq!(tab.process(n).await, own, "{kind}");
    }
    tab.closes_sound(sockets).await;
}

#[test]
#[ignore = "long: large environments"]
fn a_dash_app_is_used_in_chromium() {
    within(600, async {
        let stage = Stage::set(Some("wheels-all"), "").await;
        is_used(&stage, "dash", "app.py", DASH, "dash\n", false).await;
    });
}

#[test]
#[ignore = "long: large environments"]
fn a_bokeh_app_is_used_in_chromium() {
    within(600, async {
        let stage = Stage::set(Some("wheels-all"), "").await;
        is_used(&stage, "bokeh", "app.py", BOKEH, "bokeh\n", true).await;
    });
}

#[test]
#[ignore = "long: large environments"]
fn a_panel_app_is_used_in_chromium() {
    within(600, async {
        let stage = Stage::set(Some("wheels-all"), "").await;
        is_used(&stage, "panel", "app.py", PANEL, "panel\n", true).await;
    });
}

#[test]
#[ignore = "long: large environments"]
fn a_gradio_app_is_used_in_chromium_though_it_would_share_itself() {
    within(600, async {
        let stage = Stage::set(Some("wheels-all"), "").await;
        is_used(&stage, "gradio", "app.py", GRADIO, "gradio\n", false).await;
    });
}

#[test]
#[ignore = "long: large environments"]
fn a_notebook_is_a_dashboard_in_chromium() {
    within(600, async {
        let stage = Stage::set(Some("wheels-all"), "").await;
        let cell =
            json!({ "cell_type": "code", "execution_count": null, "metadata": {}, "outputs": [], "source": VOILA });
        let kernel = json!({ "kernelspec": { "name": "python3", "display_name": "Python 3", "language": "python" } });
        let notebook = json!({ "cells": [cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 4 }).to_string();
        is_used(&stage, "voila", "board.ipynb", &notebook, "voila\nipywidgets\n", true).await;
    });
}

/// Publishes by R's rsconnect what a folder has; the guid.
async fn r_publishes(stage: &Stage, step: &str) -> Output {
    let home = format!("HOME={}", stage.folder.root().display());
    let config = format!("R_USER_CONFIG_DIR={}/config", stage.folder.root().display());
    let ca = format!("CURL_CA_BUNDLE={}", stage.proxy.folder.path("ca.pem").display());
    let (script, url) = (script("publish.R"), base(&stage.proxy));
    let told = [&*home, &config, &ca, "Rscript", "--vanilla", &script, &url, &stage.publisher.key, step];
    run("/usr/bin/env".as_ref(), &told, "").await
}

#[test]
#[ignore = "long: packages that only it needs"]
fn an_api_in_r_answers_and_documents_itself_and_tells_what_is_wrong() {
    within(300, async {
        let stage = Stage::set(None, "").await;
        stage.nodes[0].command(&["repo", "create", "cran", "--type", "cran"]).await;
        let api = Folder::new();
        api.write("plumber.R", "library(plumber)\n#* Doubles\n#* @param n:int What\n#* @get /double\nfunction(n) list(twice = 2 * as.numeric(n))\n");
        let step = format!("app={}=api", api.root().display());
        let told = r_publishes(&stage, &step).await.ok();
        assert!(told.stdout.contains("api TRUE"), "{told:?}");
        let guid = Publisher::guid(&told);
        open_to_all(&stage.nodes[0], &guid, &stage.publisher.key).await;
        let path = format!("/content/{guid}/");
        for node in &stage.nodes {
            let twice = eventually_in(PATIENCE, "the API", async || {
                let seen = get_as(&node.address, &format!("{path}double?n=21"), &[]).await;
                (seen.status == 200).then(|| seen.text())
            })
            .await;
            assert_eq!(twice, "{\"twice\":[42]}");
        }
        // Its page of documentation tries it out, where browsers see it.
        let mut tab = stage.browser("plumber", &format!("{}__docs__/", stage.url(&guid))).await;
        tab.see("Doubles").await;
        let from = format!("{}__docs__/", stage.url(&guid));
        let fields = [("referer", from.as_str())];
        let spec = get_as(&stage.nodes[0].address, &format!("{path}openapi.json"), &fields).await.json();
        assert_eq!(spec["servers"][0]["url"], stage.url(&guid), "{spec}");
        tab.closes_sound(false).await;

        api.write("plumber.R", "stop('no luck today')\n");
        let told = r_publishes(&stage, &step).await;
        assert!(told.stdout.contains("api FALSE") && told.stderr.contains("no luck today"), "{told:?}");
        assert_eq!(get_as(&stage.nodes[0].address, &format!("{path}double?n=21"), &[]).await.status, 200);
    });
}

#[test]
#[ignore = "long: begun by R several times"]
fn documents_with_a_shiny_runtime_are_used_in_chromium() {
    within(400, async {
        let stage = Stage::set(None, "").await;
        stage.nodes[0].command(&["repo", "create", "cran", "--type", "cran"]).await;
        let button = "actionButton('press', 'Press')";
        let server = "output$said <- renderText(paste('pressed', input$press, 'times by', Sys.getpid()))";
        let plain = format!(
            "---\ntitle: Live\nruntime: shiny\noutput: html_document\n---\n\n```{{r, echo = FALSE}}\n{button}\ntextOutput('said')\n{server}\nplot(1:3)\n```\n"
        );
        let prerendered = format!(
            "---\ntitle: Live\nruntime: shiny_prerendered\noutput: html_document\n---\n\n```{{r, echo = FALSE}}\n{button}\ntextOutput('said')\nplot(1:3)\n```\n\n```{{r, context = 'server'}}\n{server}\n```\n"
        );
        for (name, text) in [("plain", plain), ("prerendered", prerendered)] {
            let document = Folder::new();
            let file = document.write("live.Rmd", text);
            let told = r_publishes(&stage, &format!("rmd={}={name}", file.display())).await.ok();
            assert!(told.stdout.contains(&format!("{name} TRUE")), "{told:?}");
            let guid = Publisher::guid(&told);
            stage.show(&guid).await;
            stage.cold(&format!("rmd-shiny, {name}"), &guid).await;
            let mut tab = stage.open(&guid).await;
            let own = tab.process(0).await;
            for n in 1..=2 {
                tab.press("Press").await;
                assert_eq!(tab.process(n).await, own);
            }
            tab.closes_sound(true).await;
        }
    });
}
