//! What is made of an R repository and kept: of now, and of days that are over.
//!
//! Apart, because anybody may ask for any of thousands of days: that must neither drive out what everybody asks for, nor take
//! more than a part of the machine.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::node::known::Known;
use crate::node::store::StoreError;

/// Which folder of which repository, when.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Of the row.
    pub repository: i64,
    /// See [`super::tree::Tree::of`].
    pub location: String,
    /// The last day on which anything of ours changed, since 1970, or `NEVER`: whatever was asked for after that and before
    /// the next one is the same. `NOW` where it is no day that is asked for.
    pub changed: i64,
    /// Of what other indexes said.
    pub stamps: Vec<i64>,
}

impl Key {
    /// See `changed`.
    pub const NOW: i64 = i64::MAX;
    /// See `changed`.
    pub const NEVER: i64 = -1;

    /// Of something that is made of this, and of more that other indexes said.
    pub fn with(&self, stamps: impl Iterator<Item = i64>) -> Self {
        Self { stamps: self.stamps.iter().copied().chain(stamps).collect(), ..self.clone() }
    }
}

/// Who may make something of a day now, of all days of all repositories.
pub type Builds = Arc<Semaphore>;

/// So many at once: each takes some 100 MB and a core for a second.
pub fn builds() -> Builds {
    Arc::new(Semaphore::new(BUILDS_MAX))
}

const BUILDS_MAX: usize = 2;

/// Things made of a repository, bounded in bytes.
pub struct Dated<T: Send + Sync + 'static> {
    now: Known<Key, Arc<T>>,
    days: Known<Key, Arc<T>>,
    builds: Builds,
}

impl<T: Send + Sync + 'static> Dated<T> {
    /// For that many bytes of now, and as many of days.
    pub fn new(bytes_max: u64, builds: Builds, weigh: fn(&T) -> usize) -> Self {
        let known =
            || Known::new(bytes_max, move |_: &Key, made: &Arc<T>| u32::try_from(weigh(made)).unwrap_or(u32::MAX));
        Self { now: known(), days: known(), builds }
    }

    /// See [`Known::get`]. Of days few are made at once.
    ///
    /// # Errors
    /// See [`Known::get`].
    pub async fn get<E: From<StoreError>>(
        &self,
        key: Key,
        generation: i64,
        make: impl AsyncFnOnce() -> Result<Arc<T>, StoreError>,
    ) -> Result<Arc<T>, E> {
        if key.changed == Key::NOW {
            return self.now.get(key, generation, make).await;
        }
        let in_turn = async || {
            let _turn = self.builds.acquire().await;
            make().await
        };
        self.days.get(key, generation, in_turn).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn key(changed: i64) -> Key {
        Key { repository: 1, location: String::new(), changed, stamps: Vec::new() }
    }

    #[tokio::test]
    async fn few_days_are_made_at_once_and_now_waits_for_none_of_them() {
        let dated: Dated<i64> = Dated::new(1 << 20, builds(), |_| 8);
        let (making, most, made) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let (begun, go_on) = (Semaphore::new(0), Semaphore::new(0));
        let make = async |day: i64| {
            most.fetch_max(making.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            begun.add_permits(1);
            let _going = go_on.acquire().await;
            making.fetch_sub(1, Ordering::SeqCst);
            made.fetch_add(1, Ordering::SeqCst);
            Ok(Arc::new(day))
        };
        let days = futures_util::future::join_all((0..500).map(|n| {
            let make = &make;
            dated.get::<StoreError>(key(n % 100), 1, async move || make(n % 100).await)
        }));
        let now = async {
            let _two = begun.acquire_many(2).await;
            let now = dated.get::<StoreError>(key(Key::NOW), 1, async || Ok(Arc::new(7))).await;
            assert_eq!((*now.unwrap(), made.load(Ordering::SeqCst)), (7, 0));
            go_on.add_permits(1000);
        };
        let (days, ()) = tokio::join!(days, now);
        assert!(days.into_iter().enumerate().all(|(n, day)| *day.unwrap() == n as i64 % 100));
        assert_eq!((most.load(Ordering::SeqCst), made.load(Ordering::SeqCst)), (BUILDS_MAX, 100));
    }
}
