use super::*;
use crate::types::Secret;

const BOUNDS: Bounds = Bounds { connections: 4, timeout: Duration::from_secs(10) };
const DEED: Deed<'_> = Deed { who: "t", address: None, action: "test", subject: "s", detail: "" };

async fn sqlite() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let url = DatabaseUrl::Sqlite(dir.path().join("b.db"));
    let store = Store::open(&url, BOUNDS).await.unwrap();
    (dir, store)
}

fn file<'a>(source_id: i64, filename: &'a str, sha256: &'a str) -> NewFile<'a> {
    NewFile {
        source_id,
        project: ("My.Pkg", "my-pkg"),
        filename,
        version: "1.0",
        kind: "sdist",
        size: 3,
        sha256,
        md5: "m",
        blake2: "b",
        requires_python: Some(">=3"),
        metadata_sha256: None,
    }
}

#[tokio::test]
async fn what_is_published_is_shown_once_and_its_name_is_never_given_to_other_bytes() {
    let (_dir, store) = sqlite().await;
    store.create_repository("pypi", Language::Python, true, &DEED).await.unwrap();
    assert!(matches!(store.create_repository("pypi", Language::Python, true, &DEED).await, Err(StoreError::Taken)));
    let before = store.repositories().await.unwrap().remove(0);
    let source = before.upload_source.unwrap();
    assert_eq!(store.publish(&file(source, "my_pkg-1.0.tar.gz", "aa"), &DEED).await.unwrap(), Published::New);
    assert_eq!(store.publish(&file(source, "my_pkg-1.0.tar.gz", "aa"), &DEED).await.unwrap(), Published::Same);
    assert_eq!(store.publish(&file(source, "my_pkg-1.0.tar.gz", "bb"), &DEED).await.unwrap(), Published::Conflict);
    let after = store.repositories().await.unwrap().remove(0);
    assert_eq!(after.generation, before.generation + 1, "only what changes something counts");
    let (project, files) = store.project(after.id, "my-pkg").await.unwrap().unwrap();
    assert_eq!((project.name.as_str(), files.len(), files[0].sha256.as_str()), ("My.Pkg", 1, "aa"));
    assert!(store.project(after.id, "other").await.unwrap().is_none());
    assert!(store.file(after.id, "aa", "my_pkg-1.0.tar.gz").await.unwrap().is_some());
    assert!(store.file(after.id, "bb", "my_pkg-1.0.tar.gz").await.unwrap().is_none());
    assert!(store.file(after.id + 1, "aa", "my_pkg-1.0.tar.gz").await.unwrap().is_none(), "another repository");
}

#[tokio::test]
async fn the_same_upload_many_times_at_once_is_published_once() {
    let (_dir, store) = sqlite().await;
    store.create_repository("pypi", Language::Python, true, &DEED).await.unwrap();
    let source = store.repositories().await.unwrap()[0].upload_source.unwrap();
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let store = store.clone();
        all.spawn(async move { store.publish(&file(source, "my_pkg-1.0.tar.gz", "aa"), &DEED).await.unwrap() });
    }
    let ends = all.join_all().await;
    assert_eq!(ends.iter().filter(|end| **end == Published::New).count(), 1);
    assert_eq!(ends.iter().filter(|end| **end == Published::Same).count(), 19);
}

#[tokio::test]
async fn keys_hold_until_they_expire_and_the_first_fact_decides() {
    let (_dir, store) = sqlite().await;
    let key = |hash, expires_at| NewKey { name: "k", hash, scope: Scope::Publish, repository: Some("a"), expires_at };
    store.create_key(key("h1", None), &DEED).await.unwrap();
    store.create_key(key("h2", Some(now() - 1)), &DEED).await.unwrap();
    let found = store.key("h1").await.unwrap().unwrap();
    assert_eq!((found.scope, found.repository.as_deref()), (Scope::Publish, Some("a")));
    assert!(store.key("h2").await.unwrap().is_none() && store.key("h3").await.unwrap().is_none());
    assert_eq!(store.agree("x", "1").await.unwrap(), "1");
    assert_eq!(store.agree("x", "2").await.unwrap(), "1");
}

#[tokio::test]
async fn a_database_that_is_away_is_told_from_one_that_refuses() {
    // Port 9 of this machine: nobody listens.
    let url = DatabaseUrl::Postgres(Secret::new("postgres://nobody@127.0.0.1:9/none".into()));
    let bounds = Bounds { connections: 1, timeout: Duration::from_millis(300) };
    assert!(matches!(Store::open(&url, bounds).await, Err(StoreError::Unavailable(_))));
    assert!(is_passing("57P01") && is_passing("08006") && is_passing("5") && is_passing("261"));
    assert!(!is_passing("23505") && !is_passing("42601") && !is_passing("1"));
}
