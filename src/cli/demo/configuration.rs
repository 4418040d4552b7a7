//! The text of DIR/proxy.toml: what a proxy in front of the demo's processes needs, and nothing else.

use std::fmt::Write;

use super::apps::App;

/// What the text is made from.
pub(super) struct Front<'a> {
    /// Port of the https listener.
    pub(super) https_port: u16,
    /// Listen on `[::1]` too.
    pub(super) has_ipv6: bool,
    /// Port of the admin endpoint.
    pub(super) admin_port: u16,
    /// Package servers, which answer `/packages/` and `/__api__/`.
    pub(super) nodes: &'a [Member],
    /// One pool each; the first answers every host, the others `r.localhost`.
    pub(super) pools: &'a [(App, Vec<Member>)],
}

/// A backend of a pool.
pub(super) struct Member {
    /// Backend key.
    pub(super) key: String,
    /// On 127.0.0.1.
    pub(super) port: u16,
}

/// The file's text. All paths in it are relative to it.
pub(super) fn text(front: &Front<'_>) -> String {
    let mut text = HEAD.replace("ADMIN_PORT", &front.admin_port.to_string());
    let listeners = [("https", "127.0.0.1"), ("https-ipv6", "[::1]")];
    for (name, address) in listeners.iter().take(if front.has_ipv6 { 2 } else { 1 }) {
        let port = front.https_port.to_string();
        text += &LISTENER.replace("NAME", name).replace("ADDRESS", address).replace("PORT", &port);
    }
    text += &NODES.replace("BACKENDS", &backends(front.nodes));
    text += &CONTENT.replace("BACKENDS", &backends(front.nodes));
    for (app, members) in front.pools {
        let host = match app {
            App::Python => "",
            App::R => "host = \"r.localhost\"\n",
        };
        text += &POOL.replace("NAME", app.name()).replace("BACKENDS", &backends(members)).replace("HOST", host);
    }
    text
}

fn backends(members: &[Member]) -> String {
    members.iter().fold(String::new(), |mut lines, Member { key, port }| {
        // Writing into a string cannot fail.
        let _ = writeln!(lines, "    {{ key = \"{key}\", address = \"127.0.0.1:{port}\" }},");
        lines
    })
}

const HEAD: &str = r#"# Written by `bowline demo` at each start. Changes made while it runs take effect at once; to keep them, copy the file.
role = "proxy"

[admin]
address = "127.0.0.1:ADMIN_PORT"
socket = "admin.sock"

[access_log]
enabled = true
file = "logs/access.log"

[shutdown]
deadline = "2s"
"#;

const LISTENER: &str = r#"
[[listener]]
name = "NAME"
address = "ADDRESS:PORT"
protocol = "https"
tls.certificates = "certs/"
"#;

/// Any node answers any request, so nobody is bound to one.
const NODES: &str = r#"
[[pool]]
name = "packages"
preset = "bowline"
policy = "least_requests"
affinity.cookie.enabled = false
backend = [
BACKENDS]

[[route]]
path = "/packages/"
pool = "packages"

[[route]]
path = "/__api__/"
pool = "packages"
"#;

/// The same nodes: whoever looks at content stays where its session is.
const CONTENT: &str = r#"
[[pool]]
name = "content"
preset = "bowline"
affinity.cookie = { key_file = "keys/affinity.key" }
backend = [
BACKENDS]

[[route]]
path = "/content/"
pool = "content"

[[route]]
path = "/connect/"
pool = "content"
"#;

const POOL: &str = r#"
[[pool]]
name = "NAME"
preset = "shiny"
affinity.cookie = { key_file = "keys/affinity.key" }
backend = [
BACKENDS]

[[route]]
HOSTpath = "/"
pool = "NAME"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn pools() -> Vec<(App, Vec<Member>)> {
        let member = |key: &str, port| Member { key: key.to_owned(), port };
        vec![
            (App::Python, vec![member("python-a", 4001), member("python-b", 4002)]),
            (App::R, vec![member("r-a", 4003), member("r-b", 4004)]),
        ]
    }

    fn nodes() -> [Member; 1] {
        [Member { key: "node-a".to_owned(), port: 4005 }]
    }

    #[test]
    fn ports_keys_and_routes_are_written() {
        let front = Front { https_port: 8444, has_ipv6: true, admin_port: 9444, nodes: &nodes(), pools: &pools() };
        let value: toml::Table = text(&front).parse().unwrap();
        assert_eq!(value["admin"]["address"].as_str(), Some("127.0.0.1:9444"));
        let addresses: Vec<_> =
            value["listener"].as_array().unwrap().iter().map(|one| one["address"].as_str().unwrap()).collect();
        assert_eq!(addresses, ["127.0.0.1:8444", "[::1]:8444"]);
        assert_eq!(value["pool"][0]["backend"][0]["key"].as_str(), Some("node-a"));
        let routes: Vec<_> =
            value["route"].as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap()).collect();
        assert_eq!(routes, ["/packages/", "/__api__/", "/content/", "/connect/", "/", "/"]);
        let second = &value["pool"][3];
        assert_eq!(second["name"].as_str(), Some("shiny-r"));
        assert_eq!(second["backend"][1]["key"].as_str(), Some("r-b"));
        assert_eq!(second["backend"][1]["address"].as_str(), Some("127.0.0.1:4004"));
        assert!(value["route"][4].get("host").is_none());
        assert_eq!(value["route"][5]["host"].as_str(), Some("r.localhost"));
        assert_eq!(value["route"][5]["pool"].as_str(), Some("shiny-r"));
    }

    #[test]
    fn without_ipv6_there_is_one_listener() {
        let front = Front { https_port: 8443, has_ipv6: false, admin_port: 9443, nodes: &nodes(), pools: &pools() };
        let value: toml::Table = text(&front).parse().unwrap();
        assert_eq!(value["listener"].as_array().unwrap().len(), 1);
    }

    /// As the proxy would read it, in a folder that has what it names.
    fn read(text: &str) -> (tempfile::TempDir, crate::config::proxy::Settings) {
        let folder = tempfile::tempdir().unwrap();
        for name in ["certs", "keys", "logs"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let path = folder.path().join("proxy.toml");
        std::fs::write(&path, text).unwrap();
        let settings = crate::config::load(&path).unwrap_or_else(|report| panic!("{report}"));
        (folder, settings)
    }

    #[test]
    fn the_proxy_can_read_it() {
        let front = Front { https_port: 8443, has_ipv6: true, admin_port: 9443, nodes: &nodes(), pools: &pools() };
        let (folder, settings) = read(&text(&front));
        assert_eq!(settings.startup.admin.socket, Some(folder.path().join("admin.sock")));
        let [nodes, content, python, r] = &settings.live.pools[..] else { panic!("four pools") };
        assert!(nodes.affinity.is_none() && !nodes.reconnect_shim);
        assert!(content.affinity.is_some() && !content.reconnect_shim);
        assert!(python.reconnect_shim && r.reconnect_shim);
        assert_eq!(python.affinity.as_ref().unwrap().key_file, folder.path().join("keys/affinity.key"));
        assert_eq!(settings.live.listeners[0].tls.as_ref().unwrap().certificates, folder.path().join("certs"));
    }

    #[test]
    fn the_proxy_can_read_what_the_readme_leads_to() {
        let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
        // The file of the beginning, and what later goes into it for packages.
        let blocks = readme.split("```toml\n").skip(1).take(2).map(|after| after.split_once("```").unwrap().0);
        let (_folder, settings) = read(&blocks.collect::<String>());
        assert_eq!(settings.live.pools[0].backends.len(), 2);
        assert!(&*settings.live.pools[1].name == "packages" && settings.live.pools[1].affinity.is_none());
        assert_eq!(settings.live.listeners[1].redirect_to_https, Some(443));
    }
}
