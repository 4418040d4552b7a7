//! Publishing with rsconnect-python and opening what was published, through the TLS proxy before two nodes.

use serde_json::Value;

use crate::harness::tools::client;
use crate::harness::{Authority, Folder, Node, Output, Proxy, eventually, get_as, run, within};
use crate::packages::{base, proxy};

/// rsconnect-python with a home of its own.
pub struct Publisher {
    url: String,
    ca: String,
    pub key: String,
    home: Folder,
}

impl Publisher {
    pub fn new(proxy: &Proxy, key: String) -> Self {
        let ca = proxy.folder.path("ca.pem").to_str().unwrap().to_owned();
        Self { url: base(proxy), ca, key, home: Folder::new() }
    }

    /// `rsconnect ARGUMENTS -s URL -k KEY -c CA REST`.
    pub async fn runs(&self, arguments: &[&str], rest: &[&str]) -> Output {
        let program = client("rsconnect", "rsconnect");
        let home = format!("HOME={}", self.home.root().display());
        let own = ["-s", &self.url, "-k", &self.key, "-c", &self.ca];
        let all = [&[&home, "NO_COLOR=1", program.to_str().unwrap()][..], arguments, &own, rest].concat();
        run("/usr/bin/env".as_ref(), &all, "").await
    }

    /// The guid of what a deployment made.
    pub fn guid(told: &Output) -> String {
        let all = format!("{}{}", told.stdout, told.stderr);
        let at = all.find("/content/").unwrap_or_else(|| panic!("no content in: {all}"));
        all[at + "/content/".len()..][..36].to_owned()
    }
}

async fn page(proxy: &Proxy, path: &str, key: Option<&str>) -> crate::harness::Response {
    let mut fields = vec![("host", "localhost"), ("accept", "text/html")];
    let authorization = key.map(|key| format!("Key {key}"));
    if let Some(value) = &authorization {
        fields.push(("authorization", value));
    }
    proxy.get_as(path, &fields).await
}

#[test]
fn pages_are_published_and_seen_by_who_may() {
    within(120, async {
        let a = Node::start("a", "").await;
        let b = a.beside("b").await;
        let ca = Authority::new();
        let proxy = proxy(&[&a, &b], &ca).await;
        let key = a.command(&["key", "create", "--admin", "--name", "ann"]).await;
        let publisher = Publisher::new(&proxy, key);
        let site = Folder::new();
        site.write("index.html", "<h1>first</h1><link href=css/a.css rel=stylesheet>");
        site.write("css/a.css", "h1 {}");
        let root = site.root().to_str().unwrap();
        let told = publisher.runs(&["deploy", "html"], &["--title", "My site", root]).await.ok();
        let guid = Publisher::guid(&told);
        let (path, key) = (format!("/content/{guid}/"), publisher.key.clone());
        for node in [&a, &b] {
            let fields = [("authorization", &*format!("Key {key}"))];
            eventually("the page", async || {
                let seen = get_as(&node.address, &path, &fields).await;
                (seen.status == 200 && seen.text().contains("first")).then_some(())
            })
            .await;
            let style = get_as(&node.address, &format!("{path}css/a.css"), &fields).await;
            assert_eq!((style.status, style.fields.get("content-type")), (200, Some("text/css")));
            assert_eq!(get_as(&node.address, &format!("{path}manifest.json"), &fields).await.status, 404);
            assert_eq!(get_as(&node.address, &format!("{path}..%2f..%2fetc/passwd"), &fields).await.status, 404);
            assert_eq!(get_as(&node.address, &path, &[]).await.status, 401, "nobody said that everybody may see it");
        }
        let _ = page(&proxy, &path, Some(&key)).await;
        let described = publisher.runs(&["content", "describe"], &["--guid", &guid]).await.ok();
        let told: Value = serde_json::from_str(&described.stdout).unwrap();
        assert_eq!((&told[0]["title"], &told[0]["app_mode"]), (&"My site".into(), &"static".into()));
    });
}
