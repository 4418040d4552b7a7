//! The cluster's key: 256 random bits that every node has, and a fingerprint by which they agree that it is the same.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use sha2::Digest;

use crate::runtime::dice;
use crate::types::{Secret, Sha256};

/// The cluster's key.
#[derive(Clone, Debug)]
pub struct ClusterKey(Secret<[u8; 32]>);

impl ClusterKey {
    /// Makes a file with a new key, mode 0600. Never writes over one.
    ///
    /// # Errors
    /// The file is there already, or its folder is not.
    pub fn generate(path: &Path) -> io::Result<Self> {
        let key = dice::secret::<32>();
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        writeln!(file, "{}", STANDARD.encode(key))?;
        file.sync_all()?;
        Ok(Self(Secret::new(key)))
    }

    /// Reads a key.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let key = STANDARD.decode(text.trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "it holds no key: `bowline keygen` makes one");
        key.map(|key| Self(Secret::new(key))).ok_or_else(wrong)
    }

    /// The key itself, to derive others from.
    pub fn secret(&self) -> Secret<[u8; 32]> {
        self.0.clone()
    }

    /// A key for one purpose, which no other one's opens or signs.
    pub fn derived(&self, purpose: &str) -> [u8; 32] {
        let master = hmac::Key::new(hmac::HMAC_SHA256, self.0.expose());
        let mut key = [0; 32];
        key.copy_from_slice(hmac::sign(&master, purpose.as_bytes()).as_ref());
        key
    }

    /// Tells keys apart without giving them away; 16 hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        let digest = sha2::Sha256::new_with_prefix(b"bowline cluster key").chain_update(self.0.expose()).finalize();
        Sha256::new(digest.into()).to_string()[..16].to_owned()
    }
}

/// Bytes of a nonce.
const NONCE: usize = 12;

/// Seals for one purpose (AES-256-GCM, a fresh nonce each): what comes back was sealed by a node of the cluster for that.
#[derive(Clone, Debug)]
pub struct Sealer(Option<std::sync::Arc<LessSafeKey>>);

impl Sealer {
    /// With a key of its own.
    pub fn new(cluster: &ClusterKey, purpose: &str) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, &cluster.derived(purpose)).ok();
        Self(key.map(LessSafeKey::new).map(std::sync::Arc::new))
    }

    /// `bound`: what has to be said again to open it. `None` never happens to what is smaller than gigabytes.
    pub fn seal(&self, bound: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        let nonce = dice::secret::<NONCE>();
        let mut bytes = plain.to_vec();
        let key = self.0.as_ref()?;
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound), &mut bytes).ok()?;
        Some([&nonce[..], &bytes].concat())
    }

    /// What was sealed; `None`: with another key, for something else, or it was changed.
    pub fn open(&self, bound: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE>()?;
        let mut rest = rest.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.0.as_ref()?.open_in_place(nonce, Aad::from(bound), &mut rest).ok()?.len();
        rest.truncate(length);
        Some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_closed_to_others_and_reads_back() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.key");
        let made = ClusterKey::generate(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(ClusterKey::read(&path).unwrap().fingerprint(), made.fingerprint());
        assert!(ClusterKey::generate(&path).is_err(), "never written over");
        std::fs::write(&path, "short").unwrap();
        assert!(ClusterKey::read(&path).is_err());
        assert!(!format!("{made:?}").contains(&STANDARD.encode(made.0.expose())));
    }
}
