//! The single values of a configuration: what each may be, and what to say when it is not.

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Value as Json, json};
use toml::Spanned;
use toml::de::DeValue;

use crate::types::{BackendAddress, BackendKey, ByteSize, HumanDuration, ListenAddress, Secret};

use super::host;
use super::proxy::HostPattern;
use super::reader::{Problems, Shape, Text, Value, Wrong, wrong_type};
use super::report::{nearest, quoted};

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count<const MIN: u64, const MAX: u64>(pub(super) u64);

impl<const MIN: u64, const MAX: u64> Value for Count<MIN, MAX> {
    fn read(value: &Spanned<DeValue<'_>>, name: &str, problems: &mut Problems<'_>) -> Option<Self> {
        let remedy = format!("write an integer from {MIN} to {MAX}");
        let Some(integer) = value.get_ref().as_integer() else {
            wrong_type(value, name, &remedy, problems);
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let fits = number.filter(|number| (MIN..=MAX).contains(number)).map(Self);
        if fits.is_none() {
            let found = quoted(&integer.to_string());
            problems.at(&value.span(), format!("`{name}` is out of range: {found}"), remedy);
        }
        fits
    }

    fn shape() -> Shape {
        Shape::Leaf(json!({ "type": "integer", "minimum": MIN, "maximum": MAX }))
    }
}

/// Processors, in thousandths: from a twentieth to a thousand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Processors(pub(super) u32);

impl Processors {
    const MIN: f64 = 0.05;
    const MAX: f64 = 1_000.0;
}

impl Value for Processors {
    fn read(value: &Spanned<DeValue<'_>>, name: &str, problems: &mut Problems<'_>) -> Option<Self> {
        let remedy = format!("write a number from {} to {}, such as `2` or `0.5`", Self::MIN, Self::MAX);
        let told = match value.get_ref() {
            DeValue::Integer(integer) => integer.to_string(),
            DeValue::Float(float) => float.to_string(),
            _ => {
                wrong_type(value, name, &remedy, problems);
                return None;
            }
        };
        match told.replace('_', "").parse::<f64>() {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within bounds")]
            Ok(number) if (Self::MIN..=Self::MAX).contains(&number) => Some(Self((number * 1_000.0).round() as u32)),
            _ => {
                problems.at(&value.span(), format!("`{name}` is out of range: {}", quoted(&told)), remedy);
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Leaf(json!({ "type": "number", "minimum": Self::MIN, "maximum": Self::MAX }))
    }
}

/// The name of an account of this machine (useradd(8), and what directories of accounts add to it).
#[derive(Clone, Debug)]
pub(super) struct AccountName(pub(super) String);

impl Text for AccountName {
    const REMEDY: &'static str = "write the name of an account of this machine, such as `\"finance\"`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let is_part = |b: u8| b.is_ascii_alphanumeric() || b"_-.@\\$".contains(&b);
        match (1..=64).contains(&text.len()) && text.bytes().all(is_part) && !text.starts_with('-') {
            true => Ok(Self(text.to_owned())),
            false => Err(Wrong::not(text, "the name of an account", Self::REMEDY)),
        }
    }
}

/// A length of time from `MIN` to `MAX` milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait<const MIN: u64, const MAX: u64>(pub(super) Duration);

impl<const MIN: u64, const MAX: u64> Text for Wait<MIN, MAX> {
    const REMEDY: &'static str = "write a duration such as `\"30s\"`, `\"1m 30s\"` or `\"500ms\"`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let duration: HumanDuration = text.parse().map_err(|_| Wrong::not(text, "a duration", Self::REMEDY))?;
        let (min, max) = (Duration::from_millis(MIN), Duration::from_millis(MAX));
        if (min..=max).contains(&duration.get()) {
            return Ok(Self(duration.get()));
        }
        let remedy =
            format!("write a duration from `\"{}\"` to `\"{}\"`", HumanDuration::new(min), HumanDuration::new(max));
        Err(Wrong { message: format!("the duration {} is out of range", quoted(text)), remedy })
    }
}

/// A number of bytes from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size<const MIN: u64, const MAX: u64>(pub(super) u64);

impl<const MIN: u64, const MAX: u64> Text for Size<MIN, MAX> {
    const REMEDY: &'static str = "write a size such as `\"64KiB\"` or `\"10MB\"`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let size: ByteSize = text.parse().map_err(|_| Wrong::not(text, "a size", Self::REMEDY))?;
        if (MIN..=MAX).contains(&size.bytes()) {
            return Ok(Self(size.bytes()));
        }
        let remedy = format!("write a size from `\"{}\"` to `\"{}\"`", ByteSize::new(MIN), ByteSize::new(MAX));
        Err(Wrong { message: format!("the size {} is out of range", quoted(text)), remedy })
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^[0-9]+ ?(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)$" })
    }
}

/// The name of a listener or a pool: it goes into metric labels, and a pool's into a cookie's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name(pub(super) Arc<str>);

impl Text for Name {
    const REMEDY: &'static str = "use 1 to 64 letters, digits, `.`, `_` or `-`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        // The same characters as a backend's key, for the same reasons.
        let key = BackendKey::parse(text).map_err(|wrong| Wrong::not(text, "a name", wrong.remedy))?;
        Ok(Self(key.as_str().into()))
    }

    fn schema() -> Json {
        BackendKey::schema()
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Text for BackendKey {
    const REMEDY: &'static str = Name::REMEDY;

    fn parse(text: &str) -> Result<Self, Wrong> {
        text.parse().map_err(|_| Wrong::not(text, "a key", Self::REMEDY))
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" })
    }
}

impl Text for ListenAddress {
    const REMEDY: &'static str = "write `\"IP:PORT\"` such as `\"0.0.0.0:443\"`, or `\"unix:/absolute/path\"`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        text.parse().map_err(|_| Wrong::not(text, "an address to listen on", Self::REMEDY))
    }
}

impl Text for BackendAddress {
    const REMEDY: &'static str = "write `\"host:port\"` such as `\"10.0.0.11:3939\"`, or `\"unix:/absolute/path\"`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let message =
            |error: &crate::types::ParseAddressError| format!("{} is no address: {}", quoted(text), error.why());
        text.parse().map_err(|error| Wrong { message: message(&error), remedy: Self::REMEDY.to_owned() })
    }
}

impl Text for SocketAddr {
    const REMEDY: &'static str = "write `\"IP:PORT\"` such as `\"127.0.0.1:9443\"`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        text.parse().map_err(|_| Wrong::not(text, "an IP address with a port", Self::REMEDY))
    }
}

/// A network, or one address as a network of its own.
impl Text for IpNet {
    const REMEDY: &'static str = "write a network such as `\"10.0.0.0/8\"` or an address such as `\"10.0.0.1\"`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::from(address));
        }
        let net: Self = text.parse().map_err(|_| Wrong::not(text, "a network", Self::REMEDY))?;
        if net.trunc() != net {
            let message = format!("the network {} has bits beyond its prefix", quoted(text));
            return Err(Wrong { message, remedy: format!("did you mean `\"{}\"`?", net.trunc()) });
        }
        Ok(net)
    }
}

/// A path in the file system, as written; relative ones are relative to the configuration's folder.
#[derive(Clone, Debug)]
pub(super) struct FilePath(pub(super) PathBuf);

impl Text for FilePath {
    const REMEDY: &'static str = "write a path, relative to this file's folder or absolute";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.is_empty() || text.contains('\0') {
            return Err(Wrong::not(text, "a path", Self::REMEDY));
        }
        Ok(Self(text.into()))
    }

    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
}

impl Text for HostPattern {
    const REMEDY: &'static str = "write a name such as `\"app.example.org\"`, `\"*.example.org\"` or `\"*\"`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        host::parse_pattern(text).map_err(|why| Wrong {
            message: format!("{} is no host: {why}", quoted(text)),
            remedy: Self::REMEDY.to_owned(),
        })
    }
}

/// A path prefix (RFC 3986 §3.3), as it stands in requests.
#[derive(Clone, Debug)]
pub(super) struct PathPrefix(pub(super) String);

impl Text for PathPrefix {
    const REMEDY: &'static str = "write a path such as `\"/\"` or `\"/app\"`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let why = if !text.starts_with('/') {
            "it does not begin with `/`"
        } else if text.len() > 1024 {
            "it is longer than 1024 bytes"
        } else if text.contains(['?', '#']) {
            "a query or fragment is no part of a path"
        } else if !text.bytes().all(|b| b.is_ascii_graphic()) {
            "other than visible ASCII must be percent-encoded"
        } else if text.split('/').any(|segment| matches!(segment, "." | "..")) {
            "requests have no `.` or `..` segments"
        } else {
            return Ok(Self(text.to_owned()));
        };
        Err(Wrong { message: format!("{} is no path: {why}", quoted(text)), remedy: Self::REMEDY.to_owned() })
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^/[^?#]*$" })
    }
}

/// What a probe asks for: origin-form with query (RFC 9112 §3.2.1).
#[derive(Clone, Debug)]
pub(super) struct Target(pub(super) String);

impl Text for Target {
    const REMEDY: &'static str = "write a path such as `\"/__ping__\"`, with a query if need be";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let is_visible = text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
        if !text.starts_with('/') || !is_visible || text.len() > 1024 {
            return Err(Wrong::not(text, "a path to probe", Self::REMEDY));
        }
        Ok(Self(text.to_owned()))
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^/[^#]*$" })
    }
}

/// The Host header of a probe (RFC 9110 §7.2): a name or an IP address, with or without a port.
#[derive(Clone, Debug)]
pub(super) struct Authority(pub(super) String);

impl Text for Authority {
    const REMEDY: &'static str = "write a name such as `\"app.example.org\"`, with a port if need be";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let with_port = matches!(text.parse(), Ok(BackendAddress::Inet { .. }));
        if with_port || host::is_name_or_ip(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::not(text, "a Host header", Self::REMEDY))
    }
}

/// The name a backend's certificate must have.
#[derive(Clone, Debug)]
pub(super) struct ServerName(pub(super) String);

impl Text for ServerName {
    const REMEDY: &'static str = "write the name in the backends' certificates, such as `\"app.internal\"`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let is_name = host::is_name_or_ip(text) && !text.starts_with('[');
        if !is_name { Err(Wrong::not(text, "a server name", Self::REMEDY)) } else { Ok(Self(text.to_owned())) }
    }

    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// A cookie's name: a token (RFC 6265 §4.1.1, RFC 9110 §5.6.2).
#[derive(Clone, Debug)]
pub(super) struct CookieName(pub(super) String);

impl Text for CookieName {
    const REMEDY: &'static str = "use 1 to 128 letters, digits, `_`, `-` or `.`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if !(1..=128).contains(&text.len()) || !text.bytes().all(is_token) {
            return Err(Wrong::not(text, "a cookie name", Self::REMEDY));
        }
        Ok(Self(text.to_owned()))
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^[-!#$%&'*+.^_`|~0-9A-Za-z]{1,128}$" })
    }
}

/// First and last good status of a probe, inclusive.
#[derive(Clone, Copy, Debug)]
pub(super) struct StatusRange(pub(super) u16, pub(super) u16);

impl Text for StatusRange {
    const REMEDY: &'static str = "write a status from 100 to 599 or a range such as `\"200-399\"`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let status = |text: &str| text.trim().parse().ok().filter(|status| (100..=599).contains(status));
        match (status(first), status(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self(first, last)),
            _ => Err(Wrong::not(text, "a range of statuses", Self::REMEDY)),
        }
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^ *[1-5][0-9]{2} *(- *[1-5][0-9]{2} *)?$" })
    }
}

/// What the process log shows: a level, or levels by target as in `info,bowline::proxy=debug`.
#[derive(Clone, Debug)]
pub(super) struct LogLevel(pub(super) String);

impl Text for LogLevel {
    const REMEDY: &'static str = "write `error`, `warn`, `info`, `debug` or `trace`, or a list such as \
                                  `\"info,bowline::proxy=debug\"`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let is_target = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:".contains(&b));
        let directive = |part: &str| match part.trim().split_once('=') {
            Some((target, level)) => is_target(target) && LEVELS.contains(&level),
            None => LEVELS.contains(&part.trim()),
        };
        if text.split(',').all(directive) {
            return Ok(Self(text.to_owned()));
        }
        let guess = nearest(text, LEVELS).map(|level| format!("did you mean `{level}`?"));
        Err(Wrong::not(text, "a log level", guess.unwrap_or_else(|| Self::REMEDY.to_owned())))
    }
}

/// Scheme, host and port of a URL; no slash at the end.
#[derive(Clone, Debug)]
pub(super) struct BaseUrl(pub(super) String);

impl Text for BaseUrl {
    const REMEDY: &'static str = "write a URL without a path, such as `\"https://packages.example.org\"`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let bare = text.strip_suffix('/').unwrap_or(text);
        let authority = bare.strip_prefix("https://").or_else(|| bare.strip_prefix("http://"));
        match authority.map(Authority::parse) {
            Some(Ok(_)) => Ok(Self(bare.to_owned())),
            _ => Err(Wrong::not(text, "a URL of a server", Self::REMEDY)),
        }
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^https?://[^/]+/?$" })
    }
}

/// Words for somebody else's ears, such as the name of a bucket.
#[derive(Clone, Debug)]
pub(super) struct PlainText(pub(super) String);

impl Text for PlainText {
    const REMEDY: &'static str = "write 1 to 255 visible characters";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let is_plain = (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_plain { Ok(Self(text.to_owned())) } else { Err(Wrong::not(text, "a name", Self::REMEDY)) }
    }

    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1, "maxLength": 255 })
    }
}

/// Where Carbon listens.
#[derive(Clone, Debug)]
pub(super) struct GraphiteAddress {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Text for GraphiteAddress {
    const REMEDY: &'static str = "write `\"host:port\"` such as `\"graphite.example.org:2003\"`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text.parse() {
            Ok(BackendAddress::Inet { host, port }) => Ok(Self { host, port }),
            _ => Err(Wrong::not(text, "an address to send metrics to", Self::REMEDY)),
        }
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^.+:[0-9]{1,5}$" })
    }
}

/// The first parts of paths in Graphite.
#[derive(Clone, Debug)]
pub(super) struct GraphitePrefix(pub(super) String);

impl Text for GraphitePrefix {
    const REMEDY: &'static str =
        "write words of letters, digits, `_` and `-` with dots between, such as `\"bowline.a\"`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
        let is_part = |part: &str| !part.is_empty() && part.bytes().all(is_plain);
        let is_path = text.len() <= 128 && text.split('.').all(is_part);
        if is_path { Ok(Self(text.to_owned())) } else { Err(Wrong::not(text, "a path in Graphite", Self::REMEDY)) }
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*$", "maxLength": 128 })
    }
}

/// A mail address, which may have a name before it (RFC 5322 §3.4).
#[derive(Clone, Debug)]
pub(super) struct Mailbox(pub(super) String);

impl Text for Mailbox {
    const REMEDY: &'static str = "write an address such as `\"Reports <reports@example.org>\"`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let (name, address) = match text.strip_suffix('>').and_then(|text| text.split_once('<')) {
            Some((name, address)) => (name, address),
            None => ("", text),
        };
        let is_address = address.split_once('@').is_some_and(|(local, host)| !local.is_empty() && !host.is_empty())
            && address.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>,;\"".contains(&byte));
        let is_name = !name.chars().any(|c| c.is_control() || "<>@,;\"".contains(c));
        if is_address && is_name && text.len() <= 255 {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::not(text, "a mail address", Self::REMEDY))
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "@", "maxLength": 255 })
    }
}

/// Which database.
#[derive(Clone, Debug)]
pub(super) enum DatabaseAddress {
    /// A file, as written.
    Sqlite(PathBuf),
    /// A server.
    Postgres(Secret<String>),
}

impl Text for DatabaseAddress {
    const REMEDY: &'static str = "write `\"sqlite:FILE\"` or `\"postgres://USER@HOST/NAME\"`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if let Some(path) = text.strip_prefix("sqlite:").filter(|path| !path.is_empty()) {
            return Ok(Self::Sqlite(path.into()));
        }
        if ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Ok(Self::Postgres(Secret::new(text.to_owned())));
        }
        // What is written may hold a password.
        Err(Wrong { message: "this is no database".to_owned(), remedy: Self::REMEDY.to_owned() })
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^(sqlite:|postgres(ql)?://)." })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts<T: Text>(text: &str) -> bool {
        T::parse(text).is_ok()
    }

    #[test]
    fn a_network_may_be_one_address_but_has_no_stray_bits() {
        assert_eq!(IpNet::parse("10.0.0.1").expect("an address").to_string(), "10.0.0.1/32");
        assert_eq!(IpNet::parse("2001:db8::/32").expect("a network").to_string(), "2001:db8::/32");
        let wrong = IpNet::parse("10.1.0.0/8").expect_err("bits beyond the prefix");
        assert_eq!(wrong.remedy, "did you mean `\"10.0.0.0/8\"`?");
    }

    #[test]
    fn ranges_hold_at_both_ends() {
        for (text, fits) in [("1s", true), ("2s", true), ("999ms", false), ("2001ms", false)] {
            assert_eq!(accepts::<Wait<1000, 2000>>(text), fits, "{text}");
        }
        for (text, fits) in [("1KiB", true), ("2KiB", true), ("1023B", false), ("2049B", false)] {
            assert_eq!(accepts::<Size<1024, 2048>>(text), fits, "{text}");
        }
        for (text, fits) in [("200", true), ("100-599", true), ("399-200", false), ("99", false), ("200-600", false)] {
            assert_eq!(accepts::<StatusRange>(text), fits, "{text}");
        }
    }

    #[test]
    fn paths_are_as_they_stand_in_requests() {
        for (text, fits) in [("/", true), ("/a%20b/", true), ("a", false), ("", false), ("/a b", false), ("/ä", false)]
        {
            assert_eq!(accepts::<PathPrefix>(text), fits, "{text}");
        }
        for text in ["/a?b", "/a#b", "/a/../b", "/.", &format!("/{}", "x".repeat(1024))] {
            assert!(!accepts::<PathPrefix>(text), "{text}");
        }
        assert!(accepts::<Target>("/ping?deep=1"));
        assert!(!accepts::<Target>("/ping\r\nX: y"));
    }

    #[test]
    fn names_that_would_not_survive_in_a_header_are_refused() {
        assert!(accepts::<CookieName>("__Host-sid"));
        for text in ["", "a b", "a;b", "a=b", "ä"] {
            assert!(!accepts::<CookieName>(text), "{text}");
        }
        for (text, fits) in [("app:8080", true), ("app", true), ("[::1]:80", true), ("a b", false), ("", false)] {
            assert_eq!(accepts::<Authority>(text), fits, "{text}");
        }
        for (text, fits) in [("app.internal", true), ("10.0.0.1", true), ("", false), ("app:443", false)] {
            assert_eq!(accepts::<ServerName>(text), fits, "{text}");
        }
    }

    #[test]
    fn log_levels_are_words_or_lists_by_target() {
        for (text, fits) in [("debug", true), ("info,bowline::proxy=trace", true), ("infos", false), ("a=b", false)] {
            assert_eq!(accepts::<LogLevel>(text), fits, "{text}");
        }
    }
}
