//! Environment variables of content, sealed with the cluster's key (AES-256-GCM, a fresh nonce each, bound to content and
//! name, so that one is never taken for another).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::node::secret::{ClusterKey, Sealer};

/// Characters of a name.
const NAME_MAX: usize = 255;
/// What the server sets itself, and what would change how it starts programs.
const OURS: &[&str] = &[
    "CONNECT_SERVER_INTERNAL",
    "POSIT_PRODUCT",
    "RSTUDIO_PRODUCT",
    "CONNECT_CONTENT_GUID",
    "HOME",
    "PATH",
    "TMPDIR",
    "USER",
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "LD_AUDIT",
    "PYTHONPATH",
    "PYTHONHOME",
    "R_HOME",
    "R_LIBS",
    "R_LIBS_SITE",
    "R_LIBS_USER",
    "VIRTUAL_ENV",
    "PORT",
];

/// Whether a variable may be set.
///
/// # Errors
/// Why not, in a sentence.
pub fn check(name: &str, value: Option<&str>) -> Result<(), String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.is_empty()
        || name.len() > NAME_MAX
        || !name.chars().all(is_part)
        || name.starts_with(|c: char| c.is_ascii_digit())
    {
        return Err(format!("`{name}` is no name of a variable: letters, digits, `_`, `.` and `-`, up to {NAME_MAX}"));
    }
    if OURS.contains(&name) || name.starts_with("BOWLINE_") {
        return Err(format!("`{name}` is set by the server itself"));
    }
    if value.is_some_and(|value| value.contains('\0')) {
        return Err(format!("The value of `{name}` has a character no variable can have"));
    }
    Ok(())
}

fn sealer(cluster: &ClusterKey) -> Sealer {
    Sealer::new(cluster, "bowline variables 1")
}

fn bound(content: &str, name: &str) -> Vec<u8> {
    format!("{content}\0{name}").into_bytes()
}

/// A value as rows keep it.
pub fn seal(cluster: &ClusterKey, content: &str, name: &str, value: &str) -> String {
    // Nothing is better than a value in plain.
    STANDARD.encode(sealer(cluster).seal(&bound(content, name), value.as_bytes()).unwrap_or_default())
}

/// The value again; `None`: it was sealed with another key, or for something else.
pub fn open(cluster: &ClusterKey, content: &str, name: &str, sealed: &str) -> Option<String> {
    let bytes = STANDARD.decode(sealed).ok()?;
    String::from_utf8(sealer(cluster).open(&bound(content, name), &bytes)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_opens_for_its_own_name_and_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let keys = ["a", "b"].map(|name| ClusterKey::generate(&dir.path().join(name)).unwrap());
        let sealed = seal(&keys[0], "g", "TOKEN", "s3cret ü");
        assert!(!sealed.contains("s3cret") && sealed != seal(&keys[0], "g", "TOKEN", "s3cret ü"));
        assert_eq!(open(&keys[0], "g", "TOKEN", &sealed).as_deref(), Some("s3cret ü"));
        for (key, content, name) in [(&keys[1], "g", "TOKEN"), (&keys[0], "h", "TOKEN"), (&keys[0], "g", "OTHER")] {
            assert_eq!(open(key, content, name, &sealed), None);
        }
        assert_eq!(open(&keys[0], "g", "TOKEN", "AAAA"), None);
    }

    #[test]
    fn names_that_would_change_how_programs_start_are_refused() {
        assert!(check("DATABASE_URL", Some("postgres://")).is_ok());
        for name in ["", "A B", "1A", "LD_PRELOAD", "PYTHONPATH", "BOWLINE_X", "A=B", "POSIT_PRODUCT"] {
            assert!(check(name, None).is_err(), "{name}");
        }
        assert!(check("A", Some("\0")).is_err());
    }
}
