//! A cookie's grammar and attributes (RFC 6265bis §4.1, §5.6), as browsers, Python and R agree on them.
//!
//! Reading is lenient, because some clients return attributes as if they were cookies (`a=1; path=/; HttpOnly`).
//! Writing is strict, because R's rsconnect wants `; ` before each attribute, no comma in the value and a `Path` that
//! is a prefix of the request's, and Python's `http.cookies` drops a whole cookie over one attribute it does not know,
//! such as `Partitioned`.

use std::fmt::Write;

use http::HeaderValue;

/// The values of all cookies with exactly this name, in the order sent, over all `Cookie` fields (HTTP/2 may split
/// them, RFC 9113 §8.2.3). White space and one pair of quotes round a value are dropped.
pub(super) fn values<'a>(fields: impl Iterator<Item = &'a [u8]>, name: &str) -> impl Iterator<Item = &'a [u8]> {
    fields.flat_map(|field| field.split(|b| *b == b';')).filter_map(move |pair| {
        let at = memchr::memchr(b'=', pair)?;
        (pair[..at].trim_ascii() == name.as_bytes()).then(|| unquoted(pair[at + 1..].trim_ascii()))
    })
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value)
}

/// What follows the value, besides `Path=/` and `HttpOnly`, which always do.
pub(super) struct Attributes {
    /// `Secure`.
    pub(super) is_secure: bool,
    /// `SameSite=None` instead of `Lax`; browsers want it `Secure`.
    pub(super) is_cross_site: bool,
    /// In seconds; `None`: as long as the browser's session.
    pub(super) max_age: Option<u64>,
}

/// A `Set-Cookie` value. `name` is a token and `value` base64url; the path is always `/`.
pub(super) fn set_cookie(name: &str, value: &str, attributes: &Attributes) -> HeaderValue {
    let mut text = String::with_capacity(name.len() + value.len() + 80);
    text.extend([name, "=", value, "; Path=/; HttpOnly; SameSite="]);
    text.push_str(if attributes.is_cross_site { "None" } else { "Lax" });
    if attributes.is_secure {
        text.push_str("; Secure");
    }
    if let Some(seconds) = attributes.max_age {
        write!(text, "; Max-Age={seconds}").expect("writing succeeds because a String only grows");
    }
    HeaderValue::try_from(text).expect("a cookie is a field value because name, value and attributes are visible ASCII")
}

/// The name with every byte that a cookie's name may not have replaced by `_` (RFC 6265bis §4.1.1: a token).
pub(super) fn token(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() { "_".to_owned() } else { name.chars().map(|c| if fits(c) { c } else { '_' }).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(fields: &[&str]) -> Vec<String> {
        values(fields.iter().map(|f| f.as_bytes()), "n").map(|v| String::from_utf8_lossy(v).into_owned()).collect()
    }

    #[test]
    fn all_values_of_a_name_are_found_among_junk() {
        assert_eq!(found(&[]), [""; 0]);
        assert_eq!(found(&["n=1"]), ["1"]);
        assert_eq!(found(&["a=b; n=1; path=/; HttpOnly", "n = \"2\" ;n=3;;=;n"]), ["1", "2", "3"]);
        assert_eq!(found(&["N=1; nn=2; xn=3; n.=4"]), [""; 0], "names are compared exactly");
        assert_eq!(found(&["n=; n==; n=a=b; n=\"; n=\u{e9}"]), ["", "=", "a=b", "\"", "\u{e9}"]);
    }

    #[test]
    fn attributes_come_as_every_client_reads_them() {
        let text = |is_secure, is_cross_site, max_age| {
            let value = set_cookie("n", "v", &Attributes { is_secure, is_cross_site, max_age });
            value.to_str().expect("ASCII").to_owned()
        };
        assert_eq!(text(false, false, None), "n=v; Path=/; HttpOnly; SameSite=Lax");
        assert_eq!(text(true, false, None), "n=v; Path=/; HttpOnly; SameSite=Lax; Secure");
        assert_eq!(text(true, true, Some(60)), "n=v; Path=/; HttpOnly; SameSite=None; Secure; Max-Age=60");
    }

    #[test]
    fn a_name_becomes_a_token() {
        assert_eq!(token("bowline_my-pool.1"), "bowline_my-pool.1");
        assert_eq!(token("a b;c=d,\u{e9}\n"), "a_b_c_d___");
        assert_eq!(token(""), "_");
    }
}
