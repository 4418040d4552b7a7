//! What was read from the database and still holds: kept by the generation of the repository it belongs to, so that a
//! request that finds it costs no query.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use moka::sync::Cache;
use tokio::sync::Mutex;

use super::store::StoreError;

/// Answers by key, bounded in weight, shared by all requests.
#[derive(Clone)]
pub struct Known<K, V> {
    kept: Cache<K, (i64, V)>,
    /// Who asks for the same waits for one answer. Few, so some wait for others' questions too.
    turns: Arc<[Mutex<()>; TURNS]>,
    hasher: RandomState,
}

const TURNS: usize = 64;

impl<K, V> Known<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Keeps answers of this weight in all.
    pub fn new(weight_max: u64, weigh: impl Fn(&K, &V) -> u32 + Send + Sync + 'static) -> Self {
        let kept = Cache::builder().weigher(move |key, (_, value): &(i64, V)| weigh(key, value));
        Self {
            kept: kept.max_capacity(weight_max).build(),
            turns: Arc::new([const { Mutex::const_new(()) }; TURNS]),
            hasher: RandomState::new(),
        }
    }

    /// What was the answer when it was last read.
    pub fn last(&self, key: &K) -> Option<V> {
        self.kept.get(key).map(|(_, value)| value)
    }

    /// The answer of this generation, read once. While the database is away an older one is better than none.
    ///
    /// # Errors
    /// What `read` says, when nothing is known.
    pub async fn get<E: From<StoreError>>(
        &self,
        key: K,
        generation: i64,
        read: impl AsyncFnOnce() -> Result<V, StoreError>,
    ) -> Result<V, E> {
        if let Some((_, value)) = self.kept.get(&key).filter(|(of, _)| *of == generation) {
            return Ok(value);
        }
        let place = self.hasher.hash_one(&key) as usize % TURNS;
        let _turn = self.turns[place].lock().await;
        let old = self.kept.get(&key);
        if let Some((of, value)) = &old
            && *of == generation
        {
            return Ok(value.clone());
        }
        match (read().await, old) {
            (Ok(value), _) => {
                self.kept.insert(key, (generation, value.clone()));
                Ok(value)
            }
            (Err(StoreError::Unavailable(_) | StoreError::NoPrimary), Some((_, old))) => Ok(old),
            (Err(error), _) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn an_answer_is_read_once_a_generation_and_an_old_one_is_better_than_none() {
        let known: Known<&str, u32> = Known::new(100, |_, _| 1);
        let reads = AtomicU32::new(0);
        let read = async || Ok(reads.fetch_add(1, Ordering::Relaxed));
        let away = async || Err(StoreError::NoPrimary);
        let all = (0..20).map(|_| known.get::<StoreError>("a", 1, read));
        let all = futures_util::future::join_all(all).await;
        assert!(all.into_iter().all(|value| value.unwrap() == 0), "twenty at once are one read");
        assert_eq!(known.get::<StoreError>("a", 2, away).await.unwrap(), 0, "the database is away");
        assert_eq!(known.get::<StoreError>("a", 2, read).await.unwrap(), 1, "and back");
        assert!(known.get::<StoreError>("b", 1, away).await.is_err());
    }
}
