//! Configuration of the usual site, with room for what a test is about: one listener `web`, one pool `app`, one route.

use std::fmt::Write as _;

use super::Origin;

/// Builds the text of a `proxy.toml`.
#[derive(Clone)]
pub struct Site {
    listener: String,
    pool: String,
    probe: String,
    affinity: String,
    route: String,
    backends: Vec<(String, String, String)>,
    more: String,
}

impl Site {
    /// A plain listener and a pool of these backends, keys as the origins' names, bound by cookie.
    pub fn new(origins: &[&Origin]) -> Self {
        let backends = origins.iter().map(|o| (o.name.clone(), o.address.clone(), String::new())).collect();
        Self {
            listener: "protocol = \"http\"".to_owned(),
            pool: String::new(),
            probe: "path = \"/__ping__\", interval = \"200ms\", fast_interval = \"100ms\", timeout = \"2s\"".to_owned(),
            affinity: "enabled = true, key_file = \"affinity.key\"".to_owned(),
            route: String::new(),
            backends,
            more: String::new(),
        }
    }

    /// The listener is https with the certificates in `certs`.
    pub fn https(mut self) -> Self {
        self.listener = "protocol = \"https\"\ntls.certificates = \"certs\"".to_owned();
        self
    }

    /// Further lines of the listener.
    pub fn listener(mut self, lines: &str) -> Self {
        self.listener += "\n";
        self.listener += lines;
        self
    }

    /// Further lines of the pool.
    pub fn pool(mut self, lines: &str) -> Self {
        self.pool += lines;
        self.pool += "\n";
        self
    }

    /// Instead of the usual probe.
    pub fn probe(mut self, entries: &str) -> Self {
        entries.clone_into(&mut self.probe);
        self
    }

    /// Further entries of the cookie's settings, or none at all for a pool without affinity.
    pub fn affinity(mut self, entries: Option<&str>) -> Self {
        match entries {
            Some(entries) => write!(self.affinity, ", {entries}").unwrap(),
            None => "enabled = false".clone_into(&mut self.affinity),
        }
        self
    }

    /// Further lines of the route.
    pub fn route(mut self, lines: &str) -> Self {
        self.route += lines;
        self.route += "\n";
        self
    }

    /// Another backend, with further entries such as `weight = 2`.
    pub fn backend(mut self, key: &str, address: &str, entries: &str) -> Self {
        self.backends.push((key.to_owned(), address.to_owned(), entries.to_owned()));
        self
    }

    /// Further entries of a backend that is already there.
    pub fn with(mut self, key: &str, entries: &str) -> Self {
        let backend = self.backends.iter_mut().find(|b| b.0 == key).unwrap();
        entries.clone_into(&mut backend.2);
        self
    }

    /// Without this backend.
    pub fn without(mut self, key: &str) -> Self {
        self.backends.retain(|b| b.0 != key);
        self
    }

    /// Whole tables, behind all others.
    pub fn more(mut self, text: &str) -> Self {
        self.more += text;
        self.more += "\n";
        self
    }

    /// The file's text; [`Proxy`](super::Proxy) adds role, admin and log.
    pub fn text(&self) -> String {
        let backends = self.backends.iter().fold(String::new(), |mut out, (key, address, entries)| {
            let comma = if entries.is_empty() { "" } else { ", " };
            writeln!(out, "    {{ key = \"{key}\", address = \"{address}\"{comma}{entries} }},").unwrap();
            out
        });
        format!(
            "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{}\n\n\
             [[pool]]\nname = \"app\"\n{}probe = {{ {} }}\naffinity.cookie = {{ {} }}\nbackend = [\n{backends}]\n\n\
             [[route]]\npool = \"app\"\n{}\n{}",
            self.listener, self.pool, self.probe, self.affinity, self.route, self.more
        )
    }
}
