//! Passwords of people: Argon2id (RFC 9106), few at once, because each takes 19 MiB and tens of milliseconds.

use std::sync::Arc;
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use http::StatusCode;
use tokio::sync::Semaphore;

use super::error::Failure;

/// At once.
const TURNS: usize = 2;
/// For a turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// Characters; the least is NIST SP 800-63B-4's for a password with a second factor or rate limits.
const LENGTH: std::ops::RangeInclusive<usize> = 8..=1024;

/// Makes and checks hashes.
#[derive(Clone, Debug)]
pub struct Passwords {
    turns: Arc<Semaphore>,
}

impl Default for Passwords {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(TURNS)) }
    }
}

impl Passwords {
    /// A hash, as a PHC string.
    ///
    /// # Errors
    /// 400: it is too short or too long; 503: too many at once.
    pub async fn hash(&self, password: String) -> Result<String, Failure> {
        if !LENGTH.contains(&password.chars().count()) {
            let (least, most) = (LENGTH.start(), LENGTH.end());
            return Err(Failure::bad(format!("A password has {least} to {most} characters")));
        }
        let hashed =
            self.work(move || Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string()));
        hashed.await?.map_err(|error| {
            tracing::error!(%error, "a password cannot be hashed");
            Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "The server failed; its log says why")
        })
    }

    /// Whether this is the password. `hash`: `None` takes as long, so that nobody learns who has one.
    ///
    /// # Errors
    /// 503: too many at once.
    pub async fn is(&self, password: String, hash: Option<String>) -> Result<bool, Failure> {
        if !LENGTH.contains(&password.chars().count()) {
            return Ok(false);
        }
        self.work(move || match hash {
            Some(hash) => Argon2::default().verify_password(password.as_bytes(), hash.as_str()).is_ok(),
            None => {
                let _ = Argon2::default().hash_password(password.as_bytes());
                false
            }
        })
        .await
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
        let busy = || Failure::new(StatusCode::SERVICE_UNAVAILABLE, "Too many people log in at once; try again");
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| busy())?.map_err(|_| busy())?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        done.await.map_err(|error| {
            tracing::error!(%error, "a password's check broke off");
            busy()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_itself_and_no_other() {
        let passwords = Passwords::default();
        let hash = passwords.hash("correct horse".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(passwords.is("correct horse".into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.is("correct hors".into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.is("correct horse".into(), None).await.unwrap());
        assert!(!passwords.is("correct horse".into(), Some("no hash".into())).await.unwrap());
        assert_eq!(passwords.hash("short".into()).await.unwrap_err().status(), StatusCode::BAD_REQUEST);
    }
}
