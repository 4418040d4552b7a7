//! HTTP/1.x messages as they stood on the wire: order, case and reason phrases kept.

/// Header or trailer fields, in order, names as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(String, String)>);

impl Fields {
    /// The first value of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// Every value of a field.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn parse(lines: std::str::Split<'_, &str>) -> Self {
        let fields = lines.filter(|l| !l.is_empty()).map(|line| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no field: {line:?}"));
            (name.to_owned(), value.trim().to_owned())
        });
        Self(fields.collect())
    }
}

/// What an upstream received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub version: String,
    pub fields: Fields,
    /// As far as it was read; without chunk framing.
    pub body: Vec<u8>,
    pub trailers: Fields,
}

impl Request {
    /// `head` ends with its blank line.
    pub fn parse(head: &str) -> Self {
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().splitn(3, ' ').map(str::to_owned);
        Self {
            method: words.next().unwrap_or_default(),
            target: words.next().unwrap_or_default(),
            version: words.next().unwrap_or_default(),
            fields: Fields::parse(lines),
            body: Vec::new(),
            trailers: Fields::default(),
        }
    }

    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// How the body is delimited.
    pub fn framing(&self) -> Framing {
        if self.fields.get("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
            return Framing::Chunked;
        }
        Framing::Length(self.fields.get("content-length").map_or(0, |n| n.parse().unwrap()))
    }
}

/// What a client received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    pub version: String,
    pub status: u16,
    pub reason: String,
    pub fields: Fields,
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// 1xx that came before, as (status, fields).
    pub interim: Vec<(u16, Fields)>,
}

impl Response {
    /// `head` ends with its blank line.
    pub fn parse(head: &str) -> Self {
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().splitn(3, ' ');
        let version = words.next().unwrap_or_default().to_owned();
        let status = words.next().and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("no status line: {head:?}"));
        let reason = words.next().unwrap_or_default().to_owned();
        Self { version, status, reason, fields: Fields::parse(lines), ..Self::default() }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {:?}", self.text()))
    }

    /// The name of the [`Origin`](super::Origin) that answered.
    pub fn origin(&self) -> &str {
        self.fields.get("x-origin").unwrap_or_else(|| panic!("not an origin's answer: {self:?}"))
    }

    /// How the body of this answer to `method` is delimited.
    pub fn framing(&self, method: &str) -> Framing {
        if method == "HEAD" || self.status < 200 || matches!(self.status, 204 | 304) {
            return Framing::Length(0);
        }
        if self.fields.get("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
            return Framing::Chunked;
        }
        self.fields.get("content-length").map_or(Framing::UntilClose, |n| Framing::Length(n.parse().unwrap()))
    }
}

/// Where a body ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}
