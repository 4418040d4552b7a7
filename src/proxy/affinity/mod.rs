//! Which backend knows this client: read a hint, write a cookie. Pure.
//!
//! The cookie is sealed, so it is opaque, cannot be forged, and every proxy with the same key file reads it: a standby
//! needs no state of ours. This module says what the cookie says; whether that backend still exists and may serve is
//! the pool's judgement. What the clock and the dice say comes in as arguments.

mod cookie;
pub mod recent;
mod seal;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use crate::config::proxy::CookieAffinity;
use crate::types::BackendKey;

pub use self::seal::{KeyRing, KeyRingError};

/// One pool's cookie.
#[derive(Debug)]
pub struct Affinity {
    /// A token (RFC 9110 §5.6.2).
    name: String,
    /// What seals are bound to: this format, the pool and the cookie's name, so that no value opens elsewhere.
    purpose: Vec<u8>,
    ring: Arc<KeyRing>,
    /// In seconds, at least 1.
    lifetime: Option<u64>,
    is_cross_site: bool,
}

/// What a request's cookies say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// No cookie of ours.
    None,
    /// A cookie we sealed, not expired.
    Bound {
        /// Where the client was sent; perhaps it no longer exists.
        backend: BackendKey,
        /// Write the cookie again if the client stays: past half its lifetime, sealed with an older key, or dated by a
        /// clock far ahead of ours.
        renew: bool,
    },
    /// Cookies of our name, none of use: treat the client as new and replace the cookie.
    Rejected(Cause),
}

/// Why a cookie is of no use. Becomes a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Ours once.
    Expired,
    /// Altered, forged, of another pool, or sealed with a key that is gone.
    Unsealed,
}

impl Affinity {
    /// The cookie of the pool named `pool`. A byte of the cookie's name that no cookie may have becomes `_`.
    pub fn new(settings: &CookieAffinity, pool: &str, ring: Arc<KeyRing>) -> Self {
        let name = cookie::token(&settings.name);
        let mut purpose = b"bowline affinity 1".to_vec();
        for part in [pool, &name] {
            // With its length, so that no two pairs of names read the same.
            purpose.extend_from_slice(&(part.len() as u64).to_be_bytes());
            purpose.extend_from_slice(part.as_bytes());
        }
        let lifetime = settings.lifetime.map(|l| l.as_secs().max(1));
        Self { name, purpose, ring, lifetime, is_cross_site: settings.cross_site }
    }

    /// The cookie's name as sent.
    pub fn cookie_name(&self) -> &str {
        &self.name
    }

    /// Reads the hint out of the values of all `Cookie` fields; `now_unix_s` in seconds since 1970.
    ///
    /// Of several cookies with our name, as a parent domain may plant them, the first that opens and is not expired
    /// counts; at most four are tried. The expiry is what was sealed, whatever the browser thinks.
    pub fn read<'a>(&self, cookies: impl Iterator<Item = &'a [u8]>, now_unix_s: u64) -> Hint {
        let mut cause = None;
        let mut attempts = 0;
        for value in cookie::values(cookies, &self.name) {
            if seal::could_be_sealed(value) {
                if attempts == ATTEMPTS_MAX {
                    break;
                }
                attempts += 1;
                match self.judge(value, now_unix_s) {
                    Ok((backend, renew)) => return Hint::Bound { backend, renew },
                    Err(Cause::Expired) => cause = Some(Cause::Expired),
                    Err(Cause::Unsealed) => {}
                }
            }
            cause = cause.or(Some(Cause::Unsealed));
        }
        cause.map_or(Hint::None, Hint::Rejected)
    }

    fn judge(&self, value: &[u8], now_unix_s: u64) -> Result<(BackendKey, bool), Cause> {
        let mut buffer = seal::Buffer::new();
        let opened = self.ring.open(value, &self.purpose, &mut buffer).ok_or(Cause::Unsealed)?;
        let (issued, key) = opened.plain.split_first_chunk().ok_or(Cause::Unsealed)?;
        let issued = u64::from_be_bytes(*issued);
        let backend = std::str::from_utf8(key).ok().and_then(|k| k.parse().ok()).ok_or(Cause::Unsealed)?;
        // Proxies of a group may disagree by a little about the time: a cookie of the future is simply fresh.
        let age = now_unix_s.saturating_sub(issued);
        let is_from_afar = issued.saturating_sub(now_unix_s) > CLOCK_SKEW_MAX.as_secs();
        let is_stale = match self.lifetime {
            Some(lifetime) if age >= lifetime => return Err(Cause::Expired),
            Some(lifetime) => age > lifetime / 2,
            None => false,
        };
        Ok((backend, is_stale || is_from_afar || !opened.is_newest_key))
    }

    /// The `Set-Cookie` field that binds a client to `backend`, to be appended to the response, a 101 too.
    ///
    /// `nonce` must be random and used once. `is_tls` says how the client reaches us: then the cookie is `Secure`.
    /// A cross-site cookie is `SameSite=None` only over TLS, because browsers refuse it without `Secure` (RFC 6265bis
    /// §5.7); over plain http it stays `Lax`, which serves everything but embedding.
    pub fn set_cookie(
        &self,
        backend: &BackendKey,
        now_unix_s: u64,
        nonce: [u8; seal::NONCE_BYTES],
        is_tls: bool,
    ) -> HeaderValue {
        let mut plain = [0; seal::PLAIN_BYTES_MAX];
        let key = backend.as_str().as_bytes();
        plain[..ISSUED_BYTES].copy_from_slice(&now_unix_s.to_be_bytes());
        plain[ISSUED_BYTES..][..key.len()].copy_from_slice(key);
        let sealed = self
            .ring
            .seal(&plain[..ISSUED_BYTES + key.len()], &self.purpose, nonce)
            .expect("a backend key is sealed because it has 64 bytes at most and a ring has a key");
        let attributes = cookie::Attributes {
            is_secure: is_tls,
            is_cross_site: self.is_cross_site && is_tls,
            max_age: self.lifetime,
        };
        cookie::set_cookie(&self.name, &sealed, &attributes)
    }
}

const ISSUED_BYTES: usize = 8;
/// Bounds the work a request with many cookies of our name can cause.
const ATTEMPTS_MAX: usize = 4;
/// Beyond this a cookie's date says that the clock of the proxy that sealed it was wrong.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(300);
