//! Requests that R's rsconnect signs with the private key of its token, in the place of an API key.
//!
//! `X-Auth-Signature` is RSA PKCS #1 v1.5 with SHA-1 (RFC 8017 §8.2) over method, path, `Date` and `X-Content-Checksum`, a
//! line each; the checksum is the MD5 of the body; `X-Auth-Token` says whose key it is (rsconnect, `R/http.R`,
//! `signatureHeaders`). Whoever reads the body finds it whole and as it was signed, or an error at its end.
//!
//! Both hashes are the client's choice. MD5 binds the body no better than whoever made it wants: somebody else would need a
//! second preimage. A signature is taken within 5 minutes of its date; one that changes something is taken once.

use std::pin::Pin;
use std::time::{Duration, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{OriginalUri, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::header::{CONTENT_TYPE, DATE, USER_AGENT};
use http::{HeaderMap, Method, StatusCode};
use md5::Digest;
use ring::signature::{RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, UnparsedPublicKey};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::api::ApiFailure;
use super::auth::Caller;
use super::error::Failure;
use super::parts::{Origin, Parts};
use crate::runtime::clock;
use crate::types::Sha256;

/// Who says that they have no token, as R's clients do where they need none.
const ANONYMOUS: &str = "anonymous-access";
/// How far a date may be from now.
const WINDOW: Duration = Duration::from_secs(300);
/// Bodies up to this are read before anybody acts on them.
const WHOLE_MAX: usize = 256 << 10;
/// For all of such a body.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a public key as clients write it: one of 8192 bits has fewer.
const KEY_MAX: usize = 2 << 10;

/// Who signed a request; among its extensions.
#[derive(Clone, Debug)]
pub struct Signer(pub Caller);

/// What was signed with which token.
#[derive(Debug)]
pub struct Signed {
    /// Its name.
    pub token: String,
    signature: Vec<u8>,
    /// Of the body.
    checksum: [u8; 16],
    /// As they are written, because that is what was signed.
    date: String,
    written_checksum: String,
}

/// Lets signed requests through as who signed them, and others as they are. For routes whose handlers take a
/// [`Manager`](super::api::Manager); on routes without this nobody is known by a signature.
pub async fn check(
    State(parts): State<Parts>,
    OriginalUri(uri): OriginalUri,
    request: Request,
    next: Next,
) -> Response {
    match checked(&parts, uri.path(), request).await {
        Ok(request) => next.run(request).await,
        Err(failure) => ApiFailure::from(failure).into_response(),
    }
}

async fn checked(parts: &Parts, path: &str, request: Request) -> Result<Request, Failure> {
    let Some(signed) = Signed::read(request.headers())? else { return Ok(request) };
    let (mut head, body) = request.into_parts();
    let origin = head.extensions.get::<Origin>().copied().unwrap_or_default();
    let external = parts.settings.external_url.as_deref();
    let messages: Vec<String> = paths(path, &head.headers, origin, external)
        .into_iter()
        .map(|path| signed.message(&head.method, &path))
        .collect();
    let holds = |key: &[u8]| messages.iter().any(|message| signed.holds(key, message));
    let caller = parts.auth.signer(&signed.token, origin, holds).await?;
    let Some(caller) = caller else { return Err(unclaimed(&head.headers)) };
    head.extensions.insert(Signer(caller));
    // A form may end before its body does, so that nobody would see the end of that.
    let kind = head.headers.get(CONTENT_TYPE).map(|value| value.as_bytes().to_ascii_lowercase());
    if kind.is_some_and(|kind| kind.starts_with(b"multipart/")) {
        return Err(Failure::bad("A signed request is no form: send the bundle itself"));
    }
    let read = tokio::time::timeout(PATIENCE, begin(body, signed.checksum)).await;
    let body = read.map_err(|_| Failure::new(StatusCode::REQUEST_TIMEOUT, "The body did not come"))??;
    if !matches!(head.method, Method::GET | Method::HEAD) {
        // Whichever of the paths was signed, the others are this one too.
        let whole = format!("{}\n{}", signed.token, signed.message(&head.method, path));
        let hash = Sha256::new(sha2::Sha256::digest(whole).into()).to_string();
        if !parts.store.take_signed(&hash).await? {
            return Err(Failure::wrong_signature("This signed request was taken before"));
        }
    }
    Ok(Request::from_parts(head, body))
}

/// What the fields say of an unclaimed token. R's clients from before 2024 go on waiting for a 500 only, and give up at
/// anything else (`getAuthedUser` of rsconnect 0.8.29); those from 1.3 on take 401 too (`waitForAuthedUser`).
fn unclaimed(fields: &HeaderMap) -> Failure {
    let failure = Failure::wrong_signature("This token was not claimed yet: open its address in a browser");
    let agent = fields.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match agent.to_ascii_lowercase().strip_prefix("rsconnect/") {
        Some(version) if is_old(version) => Failure::new(StatusCode::INTERNAL_SERVER_ERROR, failure.message()),
        _ => failure,
    }
}

/// Before 1.3.
fn is_old(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(u32::MAX));
    parts.next().zip(parts.next()).is_some_and(|version| version < (1, 3))
}

/// The paths by which a client may know this one: who signs does not know of prefixes that are taken away on the way.
fn paths(path: &str, fields: &HeaderMap, origin: Origin, external: Option<&str>) -> Vec<String> {
    let mut all = vec![path.to_owned()];
    let mut add = |path: String| {
        if !all.contains(&path) {
            all.push(path);
        }
    };
    let named = |name| fields.get(name).and_then(|value| value.to_str().ok()).filter(|_| origin.is_forwarded);
    // The whole URL, as Posit Connect's own documentation wants it from proxies.
    if let Some(told) = named("x-rsc-request").and_then(path_of).filter(|told| told.ends_with(path)) {
        add(told.to_owned());
    }
    if let Some(prefix) = named("x-forwarded-prefix").map(|prefix| prefix.trim().trim_end_matches('/')) {
        add(format!("{prefix}{path}"));
    }
    if let Some(prefix) = external.and_then(path_of) {
        add(format!("{}{path}", prefix.trim_end_matches('/')));
    }
    all
}

/// Of a URL, without its query.
fn path_of(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let path = &rest[rest.find('/')?..];
    path.split(['?', '#']).next()
}

impl Signed {
    /// What the fields say; `None`: it is not signed.
    fn read(fields: &HeaderMap) -> Result<Option<Self>, Failure> {
        let text = |name: &str| fields.get(name).and_then(|value| value.to_str().ok());
        let (Some(token), Some(signature)) = (text("x-auth-token"), text("x-auth-signature")) else { return Ok(None) };
        if token == ANONYMOUS {
            return Ok(None);
        }
        let wrong = |what: &str| Failure::wrong_signature(format!("The {what} of this signed request is none"));
        if !is_token(token) {
            return Err(wrong("X-Auth-Token"));
        }
        let signature = STANDARD.decode(signature).map_err(|_| wrong("X-Auth-Signature"))?;
        let written_checksum = text("x-content-checksum").ok_or_else(|| wrong("X-Content-Checksum"))?.to_owned();
        let checksum = STANDARD.decode(&written_checksum).ok().and_then(|bytes| bytes.try_into().ok());
        let checksum = checksum.ok_or_else(|| wrong("X-Content-Checksum"))?;
        let date = text(DATE.as_str()).ok_or_else(|| wrong("Date"))?.to_owned();
        let at = httpdate::parse_http_date(&date).ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        if at.ok_or_else(|| wrong("Date"))?.abs_diff(clock::unix()) > WINDOW {
            return Err(Failure::wrong_signature(
                "This signed request is dated more than 5 minutes from now: set this machine's clock",
            ));
        }
        Ok(Some(Self { token: token.to_owned(), signature, checksum, date, written_checksum }))
    }

    fn message(&self, method: &Method, path: &str) -> String {
        format!("{method}\n{path}\n{}\n{}", self.date, self.written_checksum)
    }

    fn holds(&self, key: &[u8], message: &str) -> bool {
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, key);
        key.verify(message.as_bytes(), &self.signature).is_ok()
    }
}

/// Whether a token could be called so: `T` and 16 bytes in hexadecimal, which R does not fill up with zeros.
pub fn is_token(name: &str) -> bool {
    name.strip_prefix('T').is_some_and(|rest| {
        (16..=32).contains(&rest.len()) && rest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// A public key as rows have it (RSAPublicKey, RFC 8017 §A.1.1), of what clients send (SubjectPublicKeyInfo, RFC 5280
/// §4.1.2.7; base64). `None`: it is no RSA key of 2048 to 8192 bits.
pub fn public_key(written: &str) -> Option<String> {
    const RSA: &str = "1.2.840.113549.1.1.1";
    let der = STANDARD.decode(Some(written).filter(|text| text.len() <= KEY_MAX)?).ok()?;
    let (rest, info) = SubjectPublicKeyInfo::from_der(&der).ok()?;
    let inner = &*info.subject_public_key.data;
    let (after, key) = RSAPublicKey::from_der(inner).ok()?;
    let significant = |bytes: &[u8]| bytes.iter().skip_while(|byte| **byte == 0).count();
    let is_fit = rest.is_empty()
        && after.is_empty()
        && info.algorithm.algorithm.to_id_string() == RSA
        && (256..=1024).contains(&significant(key.modulus))
        && (1..=4).contains(&significant(key.exponent));
    is_fit.then(|| STANDARD.encode(inner))
}

type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, axum::BoxError>> + Send>>;

/// Reads a short body, which then is known to be as signed; of a longer one the beginning.
async fn begin(body: Body, checksum: [u8; 16]) -> Result<Body, Failure> {
    let mut pieces: Pieces = Box::pin(body.into_data_stream().map(|piece| piece.map_err(Into::into)));
    let (mut ahead, mut size) = (Vec::new(), 0);
    while size <= WHOLE_MAX {
        let Some(piece) = pieces.next().await else {
            let whole = Bytes::from(ahead.concat());
            if <[u8; 16]>::from(md5::Md5::digest(&whole)) != checksum {
                return Err(Failure::wrong_signature(ALTERED));
            }
            return Ok(Body::from(whole));
        };
        let piece: Bytes = piece.map_err(|e| Failure::bad(format!("The request broke off: {e}")))?;
        size += piece.len();
        ahead.push(piece);
    }
    Ok(Body::from_stream(as_signed(Box::pin(stream::iter(ahead.into_iter().map(Ok)).chain(pieces)), checksum)))
}

/// The same pieces, the last one only if all are what was signed.
fn as_signed(pieces: Pieces, checksum: [u8; 16]) -> impl Stream<Item = Result<Bytes, axum::BoxError>> {
    let state = Some((pieces, md5::Md5::new(), None::<Bytes>));
    stream::unfold(state, move |state| async move {
        let (mut pieces, mut digest, mut last) = state?;
        loop {
            match pieces.next().await {
                Some(Ok(piece)) => {
                    digest.update(&piece);
                    if let Some(before) = last.replace(piece) {
                        return Some((Ok(before), Some((pieces, digest, last))));
                    }
                }
                Some(Err(error)) => return Some((Err(error), None)),
                None if <[u8; 16]>::from(digest.finalize()) == checksum => return last.map(|last| (Ok(last), None)),
                None => return Some((Err(ALTERED.into()), None)),
            }
        }
    })
}

const ALTERED: &str = "The body is not what was signed";

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(all: &[(&'static str, &str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_path_is_the_one_the_client_knows() {
        let forwarded = Origin { is_forwarded: true, ..Origin::default() };
        let told = fields(&[
            ("x-rsc-request", "https://x.example:8443/rsc/__api__/v1/user?a=/b"),
            ("x-forwarded-prefix", "/far/"),
        ]);
        let path = "/__api__/v1/user";
        assert_eq!(paths(path, &told, Origin::default(), None), [path]);
        let all = paths(path, &told, forwarded, Some("https://x.example/own"));
        assert_eq!(all, [path, "/rsc/__api__/v1/user", "/far/__api__/v1/user", "/own/__api__/v1/user"]);
        let other = fields(&[("x-rsc-request", "https://x.example/rsc/__api__/v1/content")]);
        assert_eq!(paths(path, &other, forwarded, Some("https://x.example")), [path], "of another request");
    }

    #[test]
    fn tokens_are_as_r_makes_them() {
        for (name, is) in [
            ("Tce50c63eb5734a937b12c3f1783829", true),
            ("T91398183a74502d7d2da58d65fda3eb4", true),
            ("T91398183a74502d7d2da58d65fda3eb41", false),
            ("T9139", false),
            ("T91398183A74502D7D2DA58D65FDA3EB4", false),
            ("91398183a74502d7d2da58d65fda3eb4", false),
            ("anonymous-access", false),
        ] {
            assert_eq!(is_token(name), is, "{name}");
        }
    }

    #[test]
    fn only_rsa_keys_that_are_long_enough_are_taken() {
        let (rsa, short, elliptic) = (RSA, SHORT, ELLIPTIC);
        assert!(public_key(rsa).is_some_and(|inner| rsa.ends_with(&inner[inner.len() - 20..])));
        let long = "A".repeat(KEY_MAX + 4);
        for wrong in [short, elliptic, "", "%", &rsa[..200], &format!("{rsa}AAAA"), &long] {
            assert_eq!(public_key(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn old_clients_wait_for_a_500() {
        for (agent, status) in [
            ("rsconnect/0.8.29", 500),
            ("rsconnect/1.2.2", 500),
            ("rsconnect/1.6.2", 401),
            ("RSConnect/1.10.1.9000", 401),
            ("RSConnectPython/1.32.0", 401),
            ("curl", 401),
        ] {
            assert_eq!(unclaimed(&fields(&[("user-agent", agent)])).status(), status, "{agent}");
        }
    }

    #[tokio::test]
    async fn nobody_reads_to_the_end_of_a_body_that_is_not_what_was_signed() {
        for size in [0, 1, WHOLE_MAX, WHOLE_MAX + 1, 3 * WHOLE_MAX] {
            let bytes = vec![7_u8; size];
            let good: [u8; 16] = md5::Md5::digest(&bytes).into();
            for checksum in [good, [0; 16]] {
                let pieces: Vec<Result<Bytes, axum::BoxError>> =
                    bytes.chunks(100_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
                let read = match begin(Body::from_stream(stream::iter(pieces)), checksum).await {
                    Ok(body) => axum::body::to_bytes(body, usize::MAX).await.ok(),
                    Err(_) => None,
                };
                assert_eq!(read.is_some_and(|read| read == bytes), checksum == good, "{size}");
            }
        }
    }

    /// RSA of 2048 bits and of 1024, and P-256.
    const RSA: &str = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAvHOC9hzze3r7wuGb3AHKEv3c7mWuD0e+/TOethDs4hNLES421eaM4BV0\
        IDm6YAeSJE7WMbKc1PLtAQm4QQuQuq+0tU2te9inIP8xWE1aSqnGXF5CmhONJCZTiQA7DehNbNDvO4E0XIDpBGvtcodu7qKGf6mL\
        Sr2HMY47v3PPW4EZZJYuXpm1pTN2wVNuHqt8Sh16XYpcjFiHxtKsSl59mKE1ZQifOJCN1PvL8zc8Qz+0kCPViCMQy/A/KEBCMu6b\
        UCrP/KRXYxtBu+EQJEdQkCzqkoul08UmWv2WQCPPq5ODQmz+u3Dfe3LmrkqXJMlyXZsKuHqjFcXjrVcr5cVdgwIDAQAB";
    const SHORT: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDGkiAR1H90W4f1iIwdV7/VyVf+tNDk12ous5pWIvq0d79sLxib3I02YhwKjMvN\
        xotdDmhBC8xtD6buBv/J2C6TIbAhgmOOu9NdBFZWdSJBT65nWpiUSBvjYUkFCDAJnNZxqLPbi+bpfHWJ3Km0qzuVJe7BfSEYLeIa\
        TH/5Vj5bPQIDAQAB";
    const ELLIPTIC: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEMwL70nGmqYA85oOdOnQKBGZzixfXeODxmzQ8YLMvsnZLp/k+w2zKrHjOjUn0EWx\
        9+sEFG/fnHgmDk0Xtts8tw==";
}
