//! The cluster's key: 256 random bits that every node has, and a fingerprint by which they agree that it is the same.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
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

    /// Tells keys apart without giving them away; 16 hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        let digest = sha2::Sha256::new_with_prefix(b"bowline cluster key").chain_update(self.0.expose()).finalize();
        Sha256::new(digest.into()).to_string()[..16].to_owned()
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
