//! A project's page of another index, in our words: JSON (PEP 691) or HTML (PEP 503). Pure.

use html5gum::{Token, Tokenizer};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::node::pypi::name;
use crate::types::Sha256;

/// What we understand, as pip asks for it.
pub const FORMS: &str =
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

/// Files of one project; the largest on PyPI has some 30,000.
const FILES_MAX: usize = 200_000;

/// A file somebody else has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteFile {
    /// Its name.
    pub filename: String,
    /// Where to get it, absolute.
    pub url: String,
    /// Of its bytes. Files without are left out: what cannot be checked is not passed on.
    pub sha256: String,
    /// Of the release, as the filename says it.
    pub version: String,
    /// Bytes, where it is told.
    pub size: Option<u64>,
    /// PEP 345.
    pub requires_python: Option<String>,
    /// SHA-256 of its core metadata, which is at `url` with `.metadata` behind it.
    pub metadata_sha256: Option<String>,
    /// PEP 592.
    pub yanked: Option<String>,
    /// Microseconds since 1970, where it is told.
    pub uploaded_at: Option<i64>,
}

/// Reads a page. `base`: its URL after redirects. `content_type`: as it was sent.
///
/// # Errors
/// What is wrong with it.
pub fn read(body: &[u8], content_type: &str, base: &Url) -> Result<Vec<RemoteFile>, String> {
    let media = content_type.split(';').next().unwrap_or_default().trim();
    let files = match media {
        "application/vnd.pypi.simple.v1+json" => json(body, base)?,
        "application/vnd.pypi.simple.v1+html" | "text/html" => html(body, base)?,
        other => return Err(format!("it is `{other}`, no page of the simple repository API")),
    };
    if files.len() > FILES_MAX {
        return Err(format!("it has more than {FILES_MAX} files"));
    }
    Ok(files)
}

fn json(body: &[u8], base: &Url) -> Result<Vec<RemoteFile>, String> {
    let page: Value = serde_json::from_slice(body).map_err(|e| format!("it is no JSON: {e}"))?;
    // PEP 629: a greater major version may mean anything.
    let version = page["meta"]["api-version"].as_str().unwrap_or("1.0");
    if version.split('.').next() != Some("1") {
        return Err(format!("it is of version {version}, and 1 is understood here"));
    }
    let files = page["files"].as_array().ok_or("it has no `files`")?;
    Ok(files.iter().filter_map(|file| json_file(file, base)).collect())
}

fn json_file(file: &Value, base: &Url) -> Option<RemoteFile> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let metadata = file.get("core-metadata").or_else(|| file.get("dist-info-metadata"));
    let yanked = match &file["yanked"] {
        Value::String(reason) => Some(reason.clone()),
        Value::Bool(true) => Some(String::new()),
        _ => None,
    };
    let mut found =
        known(file["filename"].as_str()?, &base.join(file["url"].as_str()?).ok()?, file["hashes"]["sha256"].as_str()?)?;
    found.size = file["size"].as_u64();
    found.requires_python = text(&file["requires-python"]);
    found.metadata_sha256 = metadata.and_then(|metadata| digest(metadata["sha256"].as_str()?));
    found.yanked = yanked;
    found.uploaded_at = file["upload-time"].as_str().and_then(time);
    Some(found)
}

fn html(body: &[u8], base: &Url) -> Result<Vec<RemoteFile>, String> {
    let mut files = Vec::new();
    for token in Tokenizer::new(body) {
        let Ok(Token::StartTag(tag)) = token else { continue };
        let attribute = |name: &[u8]| {
            let value = tag.attributes.iter().find(|(key, _)| ***key == *name);
            value.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        };
        if *tag.name == *b"base" {
            return Err("it has a <base>, which is not understood here".into());
        }
        if *tag.name != *b"a" {
            continue;
        }
        let Some(url) = attribute(b"href").and_then(|href| base.join(&href).ok()) else { continue };
        let hash = |text: &str| text.strip_prefix("sha256=").map(str::to_owned);
        let Some(sha256) = url.fragment().and_then(hash) else { continue };
        let Some(filename) = url.path_segments().and_then(|mut all| all.next_back()) else { continue };
        let metadata = attribute(b"data-core-metadata").or_else(|| attribute(b"data-dist-info-metadata"));
        let Some(mut found) = known(filename, &url, &sha256) else { continue };
        found.requires_python = attribute(b"data-requires-python");
        found.metadata_sha256 = metadata.and_then(|text| digest(&hash(&text)?));
        found.yanked = attribute(b"data-yanked");
        // In no PEP, but mirrors of PyPI say it.
        found.uploaded_at = attribute(b"data-upload-time").as_deref().and_then(time);
        files.push(found);
    }
    Ok(files)
}

/// A file whose name and digest are as they should be, behind a link that may be followed.
fn known(filename: &str, url: &Url, sha256: &str) -> Option<RemoteFile> {
    let version = name::parse(filename).ok()?.version;
    let sha256 = digest(sha256)?;
    if !matches!(url.scheme(), "https" | "http") {
        return None;
    }
    let mut url = url.clone();
    url.set_fragment(None);
    Some(RemoteFile {
        filename: filename.to_owned(),
        url: url.to_string(),
        sha256,
        version,
        size: None,
        requires_python: None,
        metadata_sha256: None,
        yanked: None,
        uploaded_at: None,
    })
}

fn digest(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    text.parse::<Sha256>().is_ok().then_some(text)
}

fn time(text: &str) -> Option<i64> {
    let at = humantime::parse_rfc3339(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(at.as_micros()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn base() -> Url {
        "https://index.example/simple/a/".parse().unwrap()
    }

    #[test]
    fn json_and_html_say_the_same() {
        let json = format!(
            r#"{{"meta": {{"api-version": "1.4"}}, "files": [
                {{"filename": "a-1.0-py3-none-any.whl", "url": "../../f/a-1.0-py3-none-any.whl", "hashes": {{"sha256": "{SHA}"}},
                  "requires-python": ">=3.8", "core-metadata": {{"sha256": "{SHA}"}}, "yanked": "broken"}},
                {{"filename": "a-1.0.tar.gz", "url": "https://files.example/a-1.0.tar.gz", "hashes": {{"sha256": "{SHA}"}}}},
                {{"filename": "a-0.9.tar.gz", "url": "a-0.9.tar.gz", "hashes": {{"md5": "00"}}}},
                {{"filename": "../x.tar.gz", "url": "x", "hashes": {{"sha256": "{SHA}"}}}},
                {{"filename": "a-2.0.tar.gz", "url": "file:///etc/passwd", "hashes": {{"sha256": "{SHA}"}}}}
            ]}}"#
        );
        let html = format!(
            r#"<!DOCTYPE html><html><body><a href="../../f/a-1.0-py3-none-any.whl#sha256={SHA}" data-requires-python="&gt;=3.8"
               data-dist-info-metadata="sha256={SHA}" data-yanked="broken">a</a>
               <A HREF='https://files.example/a-1.0.tar.gz#sha256={SHA}'>a</A><a href="a-0.9.tar.gz#md5=00">x</a>
               <a href="javascript:alert(1)">x</a></body></html>"#
        );
        let json = read(json.as_bytes(), "application/vnd.pypi.simple.v1+json", &base()).unwrap();
        let html = read(html.as_bytes(), "text/html; charset=utf-8", &base()).unwrap();
        assert_eq!(json, html);
        assert_eq!(json.len(), 2);
        assert_eq!(json[0].url, "https://index.example/f/a-1.0-py3-none-any.whl");
        assert_eq!((json[0].requires_python.as_deref(), json[0].yanked.as_deref()), (Some(">=3.8"), Some("broken")));
    }

    #[test]
    fn what_is_no_page_is_refused() {
        for (body, content_type) in [
            ("{}", "application/json"),
            ("no json", "application/vnd.pypi.simple.v1+json"),
            (r#"{"meta": {"api-version": "2.0"}, "files": []}"#, "application/vnd.pypi.simple.v1+json"),
            (r#"{"meta": {"api-version": "1.0"}}"#, "application/vnd.pypi.simple.v1+json"),
            ("<base href='https://evil.example/'>", "text/html"),
        ] {
            assert!(read(body.as_bytes(), content_type, &base()).is_err(), "{body}");
        }
    }
}
