//! Publishing with R's rsconnect as Debian has it, through the TLS proxy before two nodes, each request to the next one.

use std::os::unix::fs::PermissionsExt;

use crate::harness::{
    Authority, Client, Folder, Frame, Node, Output, Postgres, Proxy, Socket, cookie_of, get_as, run, script, within,
};
use crate::packages::{base, proxy};
use crate::signed::basic;

/// R with a home of its own.
pub struct R {
    url: String,
    ca: String,
    home: Folder,
    /// Where it finds packages before all others.
    pub library: String,
}

impl R {
    pub fn new(proxy: &Proxy) -> Self {
        let ca = proxy.folder.path("ca.pem").to_str().unwrap().to_owned();
        Self { url: base(proxy), ca, home: Folder::new(), library: String::new() }
    }

    /// `publish.R`, see there.
    pub async fn publishes(&self, credential: &str, steps: &[&str]) -> Output {
        let home = self.home.root().display();
        let (home, config) = (format!("HOME={home}"), format!("R_USER_CONFIG_DIR={home}/config"));
        let (ca, script) = (format!("CURL_CA_BUNDLE={}", self.ca), script("publish.R"));
        let library = format!("R_LIBS={}", self.library);
        let told = [&*home, &config, &ca, &library, "Rscript", "--vanilla", &script, &self.url, credential];
        run("/usr/bin/env".as_ref(), &[&told[..], steps].concat(), "").await
    }

    /// A program that claims the token of an address as somebody's browser would, a moment later.
    fn claimer(&self, username: &str, password: &str) -> String {
        let text = format!(
            "#!/bin/sh\nsleep 2\nask() {{ curl -sS --fail --cacert '{}' -u '{username}:{password}' \"$@\"; }}\n\
             seal=$(ask \"$1\" | sed -n 's/.*name=\"seal\" value=\"\\([^\"]*\\)\".*/\\1/p')\n\
             ask -d \"seal=$seal\" \"$1\" >/dev/null\n",
            self.ca
        );
        let path = self.home.write("claim.sh", text);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// A page as somebody sees it.
async fn page(proxy: &Proxy, ca: &Authority, path: &str, authorization: &str) -> (u16, String) {
    let mut client = Client::tls(proxy.web(), &ca.trust("localhost")).await;
    let fields = [("authorization", authorization), ("accept", "text/html")];
    let seen = client.request("GET", path, &fields, b"").await;
    (seen.status, seen.text())
}

/// What `list` printed: names and paths.
fn listed(told: &Output) -> Vec<(String, String)> {
    let words = told.stdout.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let all = words.filter(|words| words.len() == 3 && words[2].starts_with("https://"));
    all.map(|words| (words[0].to_owned(), format!("/content/{}/", words[1]))).collect()
}

/// Path of the content of this name, in what `list` printed.
pub fn path(told: &Output, name: &str) -> String {
    let found = listed(told).into_iter().find(|(of, _)| of == name);
    found.unwrap_or_else(|| panic!("no `{name}`: {told:?}")).1
}

#[test]
fn r_publishes_pages_by_key_and_by_token() {
    within(240, async {
        let database = Postgres::start();
        let a = Node::start("a", &format!("[database]\nurl = \"{}\"\n", database.url())).await;
        let b = a.beside("b").await;
        let ca = Authority::new();
        let proxy = proxy(&[&a, &b], &ca).await;
        let own = Folder::new();
        let password = own.write("password", "secret of ann").to_str().unwrap().to_owned();
        a.command(&["user", "create", "ann", "--role", "publisher", "--password-file", &password]).await;
        let key = a.command(&["key", "create", "--user", "ann", "--scope", "publish"]).await;
        let ann = basic("ann", "secret of ann");

        let site = Folder::new();
        site.write("index.html", "<h1>by key</h1>");
        site.write("css/a.css", "h1 {}");
        let app = format!("app={}=site", site.root().display());
        let r = R::new(&proxy);
        let told = r.publishes(&key, &[&app, "list"]).await.ok();
        assert!(told.stdout.contains("site TRUE"), "{told:?}");
        let at = path(&told, "site");
        assert_eq!(page(&proxy, &ca, &at, &ann).await, (200, "<h1>by key</h1>".to_owned()));

        // Again, from the same machine by its record, and from another one by its name: to the same content.
        site.write("index.html", "<h1>again</h1>");
        let told = r.publishes(&key, &[&app, "list"]).await.ok();
        assert_eq!((path(&told, "site"), listed(&told).len()), (at.clone(), 1), "{told:?}");
        assert_eq!(page(&proxy, &ca, &at, &ann).await, (200, "<h1>again</h1>".to_owned()));
        std::fs::remove_dir_all(site.path("rsconnect")).unwrap();
        let other = R::new(&proxy);
        site.write("index.html", "<h1>by token</h1>");
        // More than anybody reads before it is known whether it is what was signed; and libcurl asks before it sends that.
        let mut large = vec![0_u8; 3 << 20];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut large).unwrap();
        site.write("large.bin", &large);
        let documents = Folder::new();
        let document = documents.write("report.html", "<html><body>a report</body></html>");
        let document = format!("doc={}=report", document.display());
        let told = other.publishes(&other.claimer("ann", "secret of ann"), &[&app, &document, "list"]).await.ok();
        assert!(told.stdout.contains("site TRUE") && told.stdout.contains("report TRUE"), "{told:?}");
        assert_eq!((path(&told, "site"), listed(&told).len()), (at.clone(), 2), "{told:?}");
        assert_eq!(page(&proxy, &ca, &at, &ann).await, (200, "<h1>by token</h1>".to_owned()));
        let (status, text) = page(&proxy, &ca, &path(&told, "report"), &ann).await;
        assert!(status == 200 && text.contains("a report"), "{text}");

        // Content that was made and never published is no reason to fail.
        let fields = [("authorization", &*format!("Key {key}")), ("content-type", "application/json")];
        let made = Client::tcp(&a.address)
            .await
            .request("POST", "/__api__/v1/content", &fields, b"{\"name\": \"bare\"}")
            .await;
        assert_eq!(made.status, 200);
        let told = other.publishes(&key, &["list"]).await.ok();
        assert!(told.stdout.contains("bare "), "{told:?}");
    });
}

#[test]
fn r_publishes_a_shiny_app_that_runs_on_every_node() {
    within(240, async {
        let a = Node::start("a", "").await;
        let b = a.beside("b").await;
        let ca = Authority::new();
        let proxy = proxy(&[&a, &b], &ca).await;
        a.command(&["repo", "create", "cran", "--type", "cran"]).await;
        a.command(&["user", "create", "ann", "--role", "administrator"]).await;
        let secret = a.command(&["key", "create", "--user", "ann", "--scope", "admin"]).await;
        let app = Folder::new();
        app.write(
            "app.R",
            "library(shiny)\n\
             ui <- fluidPage(titlePanel('Hello from R'), textInput('name', 'Name'), textOutput('greeting'), plotOutput('plot'))\n\
             server <- function(input, output, session) {\n  \
             output$greeting <- renderText(paste0('greetings to ', input$name, ' of ', session$user))\n  \
             output$plot <- renderPlot(plot(1:3, main = 'a title'))\n}\n\
             shinyApp(ui, server)\n",
        );
        let r = R::new(&proxy);
        let step = format!("app={}=hello", app.root().display());
        let told = r.publishes(&secret, &[&step, "list"]).await.ok();
        assert!(told.stdout.contains("hello TRUE"), "{told:?}");
        let (at, key) = (path(&told, "hello"), format!("Key {secret}"));
        for node in [&a, &b] {
            let seen = get_as(&node.address, &at, &[("authorization", &*key), ("accept", "text/html")]).await;
            assert!(seen.status == 200 && seen.text().contains("Hello from R"), "{}", seen.text());
            let client = Client::tcp(&node.address).await;
            session(client, &at, &[("authorization", &*key), ("cookie", &*cookie_of(&seen))]).await;
        }
        session(Client::tls(proxy.web(), &ca.trust("localhost")).await, &at, &[("authorization", &*key)]).await;

        // One that does not start takes nobody's place, and R is told why.
        app.write("app.R", "stop('no luck today')\n");
        let told = r.publishes(&secret, &[&step]).await.ok();
        assert!(told.stdout.contains("hello FALSE") && told.stderr.contains("no luck today"), "{told:?}");
        let (status, text) = page(&proxy, &ca, &at, &key).await;
        assert!(status == 200 && text.contains("Hello from R"), "{text}");

        // R ends its processes; who comes next gets another one.
        let told = r.publishes(&secret, &["end=hello=ended"]).await.ok();
        assert!(told.stdout.contains("ended") && told.stderr.contains("processes are told to end"), "{told:?}");
        let (status, text) = page(&proxy, &ca, &at, &key).await;
        assert!(status == 200 && text.contains("Hello from R"), "{text}");
    });
}

#[test]
fn r_publishes_documents_that_are_rendered_here() {
    within(240, async {
        let a = Node::start("a", "").await;
        let b = a.beside("b").await;
        let ca = Authority::new();
        let proxy = proxy(&[&a, &b], &ca).await;
        a.command(&["repo", "create", "cran", "--type", "cran"]).await;
        let secret = a.command(&["key", "create", "--admin", "--name", "ann"]).await;
        let key = format!("Key {secret}");
        let document = Folder::new();
        let head = "---\ntitle: Weekly\noutput:\n  html_document:\n    self_contained: false\n---\n";
        let text = format!("{head}\nThe answer is `r 6 * 7`.\n\n```{{r}}\nplot(1:3)\nread.csv('own.csv')$what\n```\n");
        let file = document.write("weekly.Rmd", text);
        document.write("own.csv", "what\nread from a file\n");
        let site = Folder::new();
        site.write("_site.yml", "name: site\noutput: html_document\n");
        site.write("index.Rmd", "---\ntitle: Front\n---\n[more](about.html)\n");
        site.write("about.Rmd", "---\ntitle: About\n---\nAbout `r 40 + 2`.\n");
        let steps = [format!("rmd={}=weekly", file.display()), format!("app={}=site", site.root().display())];
        let r = R::new(&proxy);
        let told = r.publishes(&secret, &[&steps[0], &steps[1], "list"]).await.ok();
        assert!(told.stdout.contains("weekly TRUE") && told.stdout.contains("site TRUE"), "{told:?}");
        for node in [&a, &b] {
            let at = path(&told, "weekly");
            let fields = [("authorization", &*key)];
            let seen = get_as(&node.address, &at, &fields).await.text();
            assert!(seen.contains("The answer is 42.") && seen.contains("read from a file"), "{seen}");
            let plot = seen.split("src=\"").find_map(|text| text.split_once(".png\"")).unwrap().0;
            let plot = get_as(&node.address, &format!("{at}{plot}.png"), &fields).await;
            assert_eq!((plot.status, plot.fields.get("content-type")), (200, Some("image/png")));
            assert_eq!(get_as(&node.address, &format!("{at}own.csv"), &fields).await.status, 404);
            assert_eq!(get_as(&node.address, &format!("{at}weekly.Rmd"), &fields).await.status, 404);
            let at = path(&told, "site");
            assert!(get_as(&node.address, &at, &fields).await.text().contains("about.html"));
            assert!(get_as(&node.address, &format!("{at}about.html"), &fields).await.text().contains("About 42."));
        }
    });
}

/// A session of the app, until it has greeted and drawn.
async fn session(client: Client, at: &str, fields: &[(&str, &str)]) {
    let mut socket = Socket::open(client, &format!("{at}websocket/"), fields).await;
    let init = r#"{"method":"init","data":{"name":"you",".clientdata_output_greeting_hidden":false,
        ".clientdata_output_plot_hidden":false,".clientdata_output_plot_width":300,".clientdata_output_plot_height":200,
        ".clientdata_pixelratio":1,".clientdata_url_pathname":"/"}}"#;
    socket.send(&Frame::text(init)).await;
    let mut all = String::new();
    while !(all.contains("greetings to you of ann") && all.contains("data:image/png")) {
        let frame = socket.next().await.unwrap_or_else(|| panic!("the session ended: {all}"));
        all += &String::from_utf8_lossy(&frame.payload);
    }
}
