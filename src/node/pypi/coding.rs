//! A page in every coding a client may want, made once: plain, gzip (RFC 1952), Zstandard (RFC 8878).

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue};

use crate::node::download;

/// The same text in several codings.
pub struct Coded {
    all: [Variant; 3],
}

/// The text in one coding.
pub struct Variant {
    /// As it is sent.
    pub bytes: Bytes,
    /// Strong: it names bytes, and those of every coding are others (RFC 9110 §8.8.3.3).
    pub etag: HeaderValue,
    /// Value of Content-Encoding; `None`: plain.
    pub coding: Option<&'static str>,
}

/// As quick as gzip's default, and smaller.
const ZSTD_LEVEL: i32 = 3;

impl Coded {
    /// `digest`: of the text.
    pub fn new(text: String, digest: &str) -> Self {
        let mut gzip = GzEncoder::new(Vec::with_capacity(text.len() / 4), Compression::default());
        // Writing into memory does not fail.
        let _ = gzip.write_all(text.as_bytes());
        let gzip = gzip.finish().unwrap_or_default();
        let zstd = zstd::bulk::compress(text.as_bytes(), ZSTD_LEVEL).unwrap_or_default();
        let variant = |bytes: Vec<u8>, coding: Option<&'static str>| {
            let name = coding.map_or_else(|| digest.to_owned(), |coding| format!("{digest}-{coding}"));
            Variant { bytes: bytes.into(), etag: download::quoted(&name), coding }
        };
        Self { all: [variant(zstd, Some("zstd")), variant(gzip, Some("gzip")), variant(text.into_bytes(), None)] }
    }

    /// The first coding this client accepts.
    pub fn wanted(&self, fields: &HeaderMap) -> &Variant {
        let [zstd, gzip, plain] = &self.all;
        let is_taken =
            |variant: &&Variant| variant.coding.is_some_and(|c| !variant.bytes.is_empty() && accepts(fields, c));
        [zstd, gzip].into_iter().find(is_taken).unwrap_or(plain)
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.all[2].bytes.is_empty()
    }

    /// Bytes in memory.
    pub fn weight(&self) -> usize {
        self.all.iter().map(|variant| variant.bytes.len()).sum()
    }
}

fn accepts(fields: &HeaderMap, wanted: &str) -> bool {
    let ranges = fields.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    ranges.flat_map(|value| value.split(',')).any(|range| {
        let (coding, weight) = range.split_once(';').unwrap_or((range, ""));
        coding.trim().eq_ignore_ascii_case(wanted) && !is_zero(weight)
    })
}

/// `q=0`, in any of the ways it may be written (RFC 9110 §12.4.2).
fn is_zero(weight: &str) -> bool {
    let value = weight.trim().strip_prefix(['q', 'Q']).and_then(|rest| rest.trim_start().strip_prefix('='));
    value.is_some_and(|value| value.trim().parse::<f32>().is_ok_and(|q| q <= 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_gets_the_best_it_accepts() {
        let page = Coded::new("text ".repeat(1000), "0123");
        for (accepted, coding) in [
            ("gzip, deflate", Some("gzip")),
            ("gzip, deflate, zstd", Some("zstd")),
            ("GZIP;q=0.5", Some("gzip")),
            ("zstd;q=0, gzip;q=0.001", Some("gzip")),
            ("gzip;q=0.000, zstd; q=0", None),
            ("br, x-gzip", None),
            ("identity", None),
            ("", None),
        ] {
            let fields = [(ACCEPT_ENCODING, HeaderValue::from_static(accepted))].into_iter().collect();
            assert_eq!(page.wanted(&fields).coding, coding, "{accepted}");
        }
        assert_eq!(page.wanted(&HeaderMap::new()).etag, "\"0123\"");
        let zstd = &page.all[0];
        assert_eq!(zstd.etag, "\"0123-zstd\"");
        assert_eq!(zstd::bulk::decompress(&zstd.bytes, 10_000).unwrap(), page.all[2].bytes);
    }
}
