use super::*;
use crate::types::Secret;

const BOUNDS: Bounds = Bounds { connections: 4, timeout: Duration::from_secs(10) };
const DEED: Deed<'_> = Deed { who: "t", address: None, action: "test", subject: "s", detail: "" };

mod jobs;

#[path = "../../../tests/it/harness/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests of the whole program")]
mod postgres;

/// Does the same on an empty database of each kind.
async fn each(test: impl AsyncFn(Store)) {
    let dir = tempfile::tempdir().unwrap();
    let sqlite = DatabaseUrl::Sqlite(dir.path().join("b.db"));
    let cluster = postgres::Postgres::start();
    let postgres = DatabaseUrl::Postgres(Secret::new(cluster.url()));
    for url in [sqlite, postgres] {
        let store = Store::open(&url, BOUNDS, Migrate::Always).await.unwrap();
        test(store.clone()).await;
        store.close().await;
    }
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
        provenance_sha256: None,
        location: "",
        record: "{}",
    }
}

#[tokio::test]
async fn what_is_published_is_shown_once_and_its_name_is_never_given_to_other_bytes() {
    each(async |store| {
        store.create_repository("pypi", Language::Python, true, &[], &DEED).await.unwrap();
        assert!(matches!(
            store.create_repository("pypi", Language::Python, true, &[], &DEED).await,
            Err(StoreError::Taken)
        ));
        let before = store.repositories().await.unwrap().remove(0).0;
        let source = before.upload_source.unwrap();
        assert_eq!(store.publish(&file(source, "my_pkg-1.0.tar.gz", "aa"), None, &DEED).await.unwrap(), Published::New);
        assert_eq!(
            store.publish(&file(source, "my_pkg-1.0.tar.gz", "aa"), None, &DEED).await.unwrap(),
            Published::Same
        );
        assert_eq!(
            store.publish(&file(source, "my_pkg-1.0.tar.gz", "bb"), None, &DEED).await.unwrap(),
            Published::Conflict
        );
        let after = store.repositories().await.unwrap().remove(0).0;
        assert_eq!(after.generation, before.generation + 1, "only what changes something counts");
        let (project, files) = store.project(after.id, "my-pkg", i64::MAX).await.unwrap().unwrap();
        assert_eq!((project.name.as_str(), files.len(), files[0].sha256.as_str()), ("My.Pkg", 1, "aa"));
        assert!(store.project(after.id, "other", i64::MAX).await.unwrap().is_none());
        assert!(store.file(after.id, "aa", "my_pkg-1.0.tar.gz").await.unwrap().is_some());
        assert!(store.file(after.id, "bb", "my_pkg-1.0.tar.gz").await.unwrap().is_none());
        assert!(store.file(after.id + 1, "aa", "my_pkg-1.0.tar.gz").await.unwrap().is_none(), "another repository");
    })
    .await;
}

#[tokio::test]
async fn the_same_upload_many_times_at_once_is_published_once() {
    each(async |store| {
        store.create_repository("pypi", Language::Python, true, &[], &DEED).await.unwrap();
        let source = store.repositories().await.unwrap()[0].0.upload_source.unwrap();
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let store = store.clone();
            all.spawn(
                async move { store.publish(&file(source, "my_pkg-1.0.tar.gz", "aa"), None, &DEED).await.unwrap() },
            );
        }
        let ends = all.join_all().await;
        assert_eq!(ends.iter().filter(|end| **end == Published::New).count(), 1);
        assert_eq!(ends.iter().filter(|end| **end == Published::Same).count(), 19);
    })
    .await;
}

#[tokio::test]
async fn keys_hold_until_they_expire_and_the_first_fact_decides() {
    each(async |store| {
        let key = |hash, expires_at| NewKey {
            name: "k",
            user: None,
            hash,
            scope: Scope::Publish,
            repository: Some("a"),
            expires_at,
        };
        store.create_key(key("h1", None), &DEED).await.unwrap();
        store.create_key(key("h2", Some(now() - 1)), &DEED).await.unwrap();
        let found = store.key("h1").await.unwrap().unwrap();
        assert_eq!((found.scope, found.repository.as_deref()), (Scope::Publish, Some("a")));
        assert!(store.key("h2").await.unwrap().is_none() && store.key("h3").await.unwrap().is_none());
        assert_eq!(store.agree("x", "1").await.unwrap(), "1");
        assert_eq!(store.agree("x", "2").await.unwrap(), "1");
    })
    .await;
}

#[tokio::test]
async fn of_each_day_the_last_change_of_another_repository_is_kept() {
    each(async |store| {
        store.create_source("world", Language::R, "remote", "{}", &DEED).await.unwrap();
        let source = store.sources().await.unwrap()[0].id;
        let day = 24 * 3600 * 1_000_000;
        let put = async |at: i64, sha256: Option<&str>| {
            let sha256 = sha256.map(str::to_owned);
            let page = RemotePage { fetched_at: at, asked_at: at, fresh_until: at, etag: None, sha256 };
            store.put_remote_page(source, "src/contrib", &page, true, None).await.unwrap();
        };
        put(day, None).await;
        assert_eq!(store.remote_day(source, "src/contrib", i64::MAX).await.unwrap(), None, "it never was there");
        for (at, sha256) in [(10, "aa"), (11, "aa"), (20, "bb"), (22, "cc"), (40, "cc"), (50, "dd")] {
            put(at * day / 10, Some(sha256)).await;
        }
        put(6 * day, None).await;
        let seen = async |before: i64| {
            let found = store.remote_day(source, "src/contrib", before * day / 10).await.unwrap();
            found.map(|found| (found.seen_at * 10 / day, found.sha256.unwrap_or_default()))
        };
        let is = |at: i64, sha256: &str| Some((at, sha256.to_owned()));
        assert_eq!(seen(10).await, None);
        assert_eq!((seen(20).await, seen(30).await), (is(10, "aa"), is(22, "cc")));
        assert_eq!((seen(50).await, seen(60).await, seen(70).await), (is(22, "cc"), is(50, "dd"), is(60, "")));
        let named = store.named().await.unwrap();
        assert!(["aa", "cc", "dd"].iter().all(|sha256| named.contains(*sha256)) && !named.contains("bb"));
        assert_eq!(store.condemn(&["aa".to_owned()]).await.unwrap(), Vec::<String>::new());
        assert!(store.remote_names(source).await.unwrap().is_empty(), "it is gone");
        assert!(store.remove_source("world", &DEED).await.unwrap());
        assert!(!store.named().await.unwrap().contains("aa"));
    })
    .await;
}

#[tokio::test]
async fn files_of_another_index_are_forgotten_when_nobody_uses_them_and_it_answers() {
    each(async |store| {
        store.create_source("world", Language::Python, "remote", "{}", &DEED).await.unwrap();
        let source = store.sources().await.unwrap()[0].id;
        let today = now() / (24 * 3600 * 1_000_000);
        let file = |path: &str| UsedFile { source, path: path.to_owned(), sha256: "aa".to_owned() };
        store.put_remote_file(source, &["a"], "aa", None).await.unwrap();
        store.put_remote_file(source, &["b"], "aa", None).await.unwrap();
        let unknown = store.use_remote_files(&[file("a"), file("c")], today + 5).await.unwrap();
        assert_eq!(unknown, [file("c")]);
        assert!(store.use_remote_files(&[file("a")], today).await.unwrap().is_empty(), "it stays the later day");
        assert_eq!(store.forget_unused(today + 5, 0).await.unwrap(), 0, "it never answered");
        let page = RemotePage { fetched_at: 1, asked_at: 7, fresh_until: 1, etag: None, sha256: None };
        store.put_remote_page(source, "x", &page, false, None).await.unwrap();
        assert_eq!(store.forget_unused(today + 5, 8).await.unwrap(), 0, "it has not answered lately");
        assert_eq!(store.forget_unused(today + 5, 7).await.unwrap(), 1);
        assert!(store.remote_file(source, "a").await.unwrap().is_some());
        assert!(store.remote_file(source, "b").await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn a_database_that_is_away_is_told_from_one_that_refuses() {
    // Port 9 of this machine: nobody listens.
    let url = DatabaseUrl::Postgres(Secret::new("postgres://nobody@127.0.0.1:9/none".into()));
    let bounds = Bounds { connections: 1, timeout: Duration::from_millis(300) };
    assert!(matches!(Store::open(&url, bounds, Migrate::Always).await, Err(StoreError::Unavailable(_))));
    assert!(is_passing("57P01") && is_passing("08006") && is_passing("5") && is_passing("261"));
    assert!(!is_passing("23505") && !is_passing("42601") && !is_passing("1"));
}

#[tokio::test]
async fn a_schema_that_wants_a_newer_program_is_left_alone_and_told() {
    each(async |store| {
        assert_eq!(store.refusal().await.unwrap(), None);
        let newer = Store::schema_known() + 1;
        with!(store, pool => {
            sqlx::query("UPDATE schema_guard SET tolerates = $1").bind(newer).execute(pool).await?;
            Ok(())
        })
        .unwrap();
        let told = store.refusal().await.unwrap().unwrap();
        assert!(told.contains("install the version"), "{told}");
        assert!(matches!(store.prepare(Migrate::Always).await, Err(StoreError::Schema(_))));
    })
    .await;
}

#[tokio::test]
async fn only_who_may_makes_a_schema_and_many_at_once_make_one() {
    let dir = tempfile::tempdir().unwrap();
    let url = DatabaseUrl::Sqlite(dir.path().join("b.db"));
    assert!(matches!(Store::open(&url, BOUNDS, Migrate::Never).await, Err(StoreError::Schema(_))));
    let cluster = postgres::Postgres::start();
    for url in [url, DatabaseUrl::Postgres(Secret::new(cluster.url()))] {
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let url = url.clone();
            all.spawn(async move { Store::open(&url, BOUNDS, Migrate::IfEmpty).await.unwrap().close().await });
        }
        all.join_all().await;
        Store::open(&url, BOUNDS, Migrate::Never).await.unwrap();
    }
}

#[tokio::test]
async fn nodes_are_seen_until_they_leave_or_fall_silent() {
    each(async |store| {
        let beat = |id| Beat { id, name: "n", machine: "m", started_at: 1, report: "{}" };
        let offset = store.clock_offset().await.unwrap();
        assert!(offset.abs() < 1_000_000, "one machine, one clock: {offset}");
        store.beat(&beat("a"), offset).await.unwrap();
        store.beat(&beat("a"), offset).await.unwrap();
        // Seen ten minutes ago, as a clock that is ahead by as much would have it.
        store.beat(&beat("b"), offset + 600_000_000).await.unwrap();
        let within = |seconds| store.nodes(Duration::from_secs(seconds), offset);
        assert_eq!(within(60).await.unwrap().iter().map(|n| n.id.as_str()).collect::<Vec<_>>(), ["a"]);
        assert_eq!(within(900).await.unwrap().len(), 2);
        store.leave("a").await.unwrap();
        assert_eq!(within(60).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn what_is_managed_is_changed_and_written_down() {
    each(async |store| {
        store.create_source("extra", Language::Python, "local", "{}", &DEED).await.unwrap();
        let names = ["mine".to_owned(), "extra".to_owned()];
        let made = store.create_repository("pypi", Language::Python, true, &names, &DEED).await;
        assert!(matches!(made, Err(StoreError::Missing)), "{made:?}");
        assert_eq!(store.repositories().await.unwrap(), [], "all or nothing");
        store.create_repository("pypi", Language::Python, true, &[], &DEED).await.unwrap();
        let changed = store.change_repository("pypi", Some(false), Some(&["extra".into(), "pypi".into()]), &DEED).await;
        assert!(changed.unwrap());
        let (repository, sources) = store.repositories().await.unwrap().remove(0);
        assert!(!repository.anonymous_read);
        assert_eq!(sources.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["extra", "pypi"]);
        let source = repository.upload_source.unwrap();
        assert_eq!(source, sources[0].id);

        store.publish(&file(source, "my_pkg-1.0.tar.gz", "aa"), None, &DEED).await.unwrap();
        let which = |version, filename| Which { source, normal_name: "my-pkg", version, filename };
        assert_eq!(store.yank(which(Some("2.0"), None), "", &DEED).await.unwrap(), 0);
        assert_eq!(store.yank(which(Some("1.0"), None), "broken", &DEED).await.unwrap(), 1);
        assert_eq!(store.yank(which(Some("1.0"), None), "broken", &DEED).await.unwrap(), 0, "yanked already");
        let (_, files) = store.project(repository.id, "my-pkg", i64::MAX).await.unwrap().unwrap();
        assert_eq!(files[0].yanked.as_deref(), Some("broken"));
        assert_eq!(store.unyank(which(None, Some("my_pkg-1.0.tar.gz")), &DEED).await.unwrap(), 1);
        assert!(store.set_status(source, "my-pkg", "archived", Some("old"), &DEED).await.unwrap());
        assert!(!store.set_status(source, "other", "archived", None, &DEED).await.unwrap());
        let closed = store.publish(&file(source, "my_pkg-2.0.tar.gz", "bb"), None, &DEED).await.unwrap();
        assert_eq!(closed, Published::Closed("archived".into()));
        assert_eq!(store.archive(which(None, None), &DEED).await.unwrap(), 1);
        let days = store.r_days(repository.id).await.unwrap();
        assert!(days.iter().all(|day| (0..2).contains(&(now() / DAY - day))) && !days.is_empty(), "{days:?}");
        assert_eq!(store.unarchive(which(None, None), &DEED).await.unwrap(), 1);
        assert_eq!(store.remove(which(None, None), &DEED).await.unwrap(), 1);
        assert_eq!(store.r_days(repository.id).await.unwrap(), [0; 0]);
        assert_eq!(store.project(repository.id, "my-pkg", i64::MAX).await.unwrap().unwrap().1, []);
        assert_eq!(store.projects_of(source).await.unwrap()[0].files, 0);

        assert!(matches!(store.remove_source("extra", &DEED).await, Err(StoreError::InUse)));
        assert!(store.remove_repository("pypi", &DEED).await.unwrap());
        assert!(store.remove_source("extra", &DEED).await.unwrap());
        assert!(!store.remove_source("extra", &DEED).await.unwrap());
        assert_eq!(store.audit(i64::MAX, 100).await.unwrap().len(), 12);
        assert_eq!(store.audit(i64::MAX, 3).await.unwrap().len(), 3);
    })
    .await;
}

#[tokio::test]
async fn a_users_keys_allow_what_the_user_is_allowed_now() {
    each(async |store| {
        let profile = |username, role| Profile { username, email: "a@b", first_name: "Ann", last_name: "Lee", role };
        let ann = profile("ann", Role::Publisher);
        store.create_user("g-1", ann, Some("phc"), &DEED).await.unwrap();
        assert!(matches!(store.create_user("g-2", ann, None, &DEED).await, Err(StoreError::Taken)));
        store.create_user("g-3", profile("bob", Role::Viewer), None, &DEED).await.unwrap();
        let user = store.user("G-1").await.unwrap().unwrap();
        assert_eq!((user.number, user.role, user.has_password), (1, Role::Publisher, true));
        assert_eq!(store.user("bob").await.unwrap().unwrap().number, 2, "numbers of what failed are given again");
        let found: Vec<_> = store.users().await.unwrap().into_iter().map(|user| user.username).collect();
        assert_eq!(found, ["ann", "bob"]);

        let new = NewKey {
            name: "k",
            user: Some(user.id),
            hash: "h",
            scope: Scope::Admin,
            repository: None,
            expires_at: None,
        };
        store.create_key(new, &DEED).await.unwrap();
        let key = store.key("h").await.unwrap().unwrap();
        assert_eq!((key.scope, key.who.as_str()), (Scope::Publish, "ann (k)"));
        store.keys_used(&[(key.id, 7)]).await.unwrap();
        assert_eq!(store.user("ann").await.unwrap().unwrap().active_at, Some(7));
        assert!(
            store.change_user(user.id, Change { role: Some(Role::Viewer), ..Change::default() }, &DEED).await.unwrap()
        );
        assert_eq!(store.key("h").await.unwrap().unwrap().scope, Scope::Read);
        assert_eq!(store.user("ann").await.unwrap().unwrap().last_name, "Lee", "what is not said stays");
        assert_eq!(store.password(user.id).await.unwrap().as_deref(), Some("phc"));
        store.lock_user(user.id, true, &DEED).await.unwrap();
        assert!(store.key("h").await.unwrap().is_none() && store.password(user.id).await.unwrap().is_none());
        store.lock_user(user.id, false, &DEED).await.unwrap();
        assert!(store.key("h").await.unwrap().is_some());
        assert!(matches!(
            store.change_user(user.id, Change { username: Some("bob"), ..Change::default() }, &DEED).await,
            Err(StoreError::Taken)
        ));
        assert!(store.remove_user(user.id, &DEED).await.unwrap());
        assert!(store.key("h").await.unwrap().is_none() && !store.remove_user(user.id, &DEED).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn a_token_is_claimed_once_and_what_was_signed_is_taken_once() {
    each(async |store| {
        let profile = Profile { username: "ann", email: "", first_name: "", last_name: "", role: Role::Publisher };
        store.create_user("g", profile, None, &DEED).await.unwrap();
        let user = store.user("ann").await.unwrap().unwrap();
        assert!(store.create_token("Ta", "key", Some("10.0.0.1")).await.unwrap());
        let again = store.create_token("Ta", "other", Some("10.0.0.2")).await;
        assert!(matches!(again, Err(StoreError::Taken)));
        let row = store.token("Ta").await.unwrap().unwrap();
        assert_eq!((row.public_key.as_str(), row.account_id), ("key", None));
        assert!(store.claim_token("Ta", user.id, None, &DEED).await.unwrap());
        assert!(!store.claim_token("Ta", user.id, None, &DEED).await.unwrap());
        assert!(!store.claim_token("Tb", user.id, None, &DEED).await.unwrap());

        // One that ends, and some for somebody who asks for too many.
        assert!(store.create_token("Tc", "key", None).await.unwrap());
        let new = |hash| NewKey {
            name: "k",
            user: Some(user.id),
            hash,
            scope: Scope::Publish,
            repository: None,
            expires_at: Some(now() + 60_000_000),
        };
        store.create_key(new("h"), &DEED).await.unwrap();
        let key = store.key("h").await.unwrap().unwrap();
        let over = ApiKey { expires_at: Some(now() - 1), ..key.clone() };
        assert!(store.claim_token("Tc", user.id, Some(&over), &DEED).await.unwrap());
        assert_eq!(store.token("Tc").await.unwrap(), None);
        // With the key it was claimed by, or the password.
        for token in ["Te", "Tf"] {
            assert!(store.create_token(token, "key", None).await.unwrap());
        }
        assert!(store.claim_token("Te", user.id, Some(&key), &DEED).await.unwrap());
        assert!(store.claim_token("Tf", user.id, None, &DEED).await.unwrap());
        assert!(store.token("Te").await.unwrap().is_some() && store.token("Tf").await.unwrap().is_some());
        assert!(store.revoke_key(key.id, &DEED).await.unwrap());
        assert!(store.token("Te").await.unwrap().is_none() && store.token("Tf").await.unwrap().is_some());
        assert!(store.set_password(user.id, Some("phc"), &DEED).await.unwrap());
        assert!(store.token("Tf").await.unwrap().is_none());
        assert!(store.create_token("Tg", "key", None).await.unwrap());
        assert!(store.claim_token("Tg", user.id, None, &DEED).await.unwrap());
        let mut made = 0;
        for n in 0..40 {
            made += i32::from(store.create_token(&format!("Td{n}"), "key", Some("10.0.0.1")).await.unwrap());
        }
        assert_eq!(made, 30);
        store.forget_tokens().await.unwrap();
        assert_eq!(store.token("Tg").await.unwrap().map(|row| row.account_id), Some(Some(user.id)));

        assert!(store.take_signed("aa").await.unwrap());
        assert!(!store.take_signed("aa").await.unwrap());
        assert!(store.take_signed("bb").await.unwrap());
        assert!(store.remove_user(user.id, &DEED).await.unwrap());
        assert_eq!(store.token("Tg").await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn what_was_wanted_earlier_comes_too_late_and_what_is_locked_stays() {
    each(async |store| {
        let about = About { name: "x", title: "", description: "", access: "acl", settings: "{}", is_locked: false };
        store.create_content("g", "o", about, &DEED).await.unwrap();
        let id = store.content("g").await.unwrap().unwrap().id;
        let new = NewBundle { content_id: id, sha256: "aa", md5: "m", size: 1, manifest: "{}", metadata: "{}" };
        let [one, two] = [
            store.create_bundle(new, None, &DEED).await.unwrap(),
            store.create_bundle(new, None, &DEED).await.unwrap(),
        ];
        let runs = async || store.content("g").await.unwrap().unwrap().bundle;
        assert!(store.activate(id, two, None, "static", 20, &DEED).await.unwrap());
        assert!(
            !store.activate(id, one, None, "static", 10, &DEED).await.unwrap(),
            "it took longer than the one after it"
        );
        assert_eq!(runs().await, Some(two));
        assert!(store.activate(id, one, None, "static", 30, &DEED).await.unwrap(), "back again, as somebody wants");
        assert_eq!(runs().await, Some(one));
        let locked = About { is_locked: true, ..about };
        assert!(store.change_content(id, locked, about.settings, &DEED).await.unwrap());
        // Somebody saw other settings.
        assert!(!store.change_content(id, about, "{\"run_as\":\"x\"}", &DEED).await.unwrap());
        assert!(!store.activate(id, two, None, "static", 40, &DEED).await.unwrap());
        assert!(matches!(store.remove_bundle(one, &DEED).await, Err(StoreError::InUse)));
        assert!(store.remove_bundle(two, &DEED).await.unwrap() && store.remove_content(id, &DEED).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn older_bundles_go_but_for_what_runs_what_is_newer_and_what_somebody_needs() {
    each(async |store| {
        let about = About { name: "x", title: "", description: "", access: "acl", settings: "{}", is_locked: false };
        store.create_content("g", "o", about, &DEED).await.unwrap();
        let id = store.content("g").await.unwrap().unwrap().id;
        let new = NewBundle { content_id: id, sha256: "aa", md5: "m", size: 1, manifest: "{}", metadata: "{}" };
        let mut all = Vec::new();
        for _ in 0..6 {
            all.push(store.create_bundle(new, None, &DEED).await.unwrap());
        }
        assert!(store.retire_bundles(id, "g", 1, &DEED).await.unwrap().is_empty(), "nothing runs");
        assert!(store.activate(id, all[4], None, "static", 10, &DEED).await.unwrap());
        let rendering =
            NewRendering { content_id: id, bundle: all[0], sha256: "bb", size: 1, main: "m", took: 1, created_by: "t" };
        store.create_rendering(rendering, false, None).await.unwrap();
        let input = format!("{{\"bundle\":{}}}", all[1]);
        let task = NewJob { kind: "deploy", subject: "g", input: &input, slot: "s" };
        let task = store.enqueue(task, None).await.unwrap().unwrap();
        assert!(store.retire_bundles(id, "g", 6, &DEED).await.unwrap().is_empty(), "there are no more");
        assert_eq!(store.retire_bundles(id, "g", 1, &DEED).await.unwrap(), [all[2], all[3]]);
        let left = async || store.bundles(id).await.unwrap().iter().map(|row| row.number).collect::<Vec<_>>();
        assert_eq!(left().await, [all[5], all[4], all[1], all[0]]);
        assert!(store.cancel(task, &DEED).await.unwrap());
        assert_eq!(store.retire_bundles(id, "g", 1, &DEED).await.unwrap(), [all[1]]);
        let told = store.audit(i64::MAX, 1).await.unwrap();
        assert_eq!(told[0].detail, all[1].to_string());

        assert_eq!(store.lock(all[4]).await.unwrap(), None);
        store.set_lock(all[4], Some("a==1")).await.unwrap();
        assert_eq!(store.lock(all[4]).await.unwrap().as_deref(), Some("a==1"));
        let many: Vec<i64> = (1..2_000).chain([all[4], all[5]]).collect();
        let mut numbers: Vec<i64> = store.bundles_numbered(&many).await.unwrap().iter().map(|row| row.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers, [all[0], all[4], all[5]]);
        assert_eq!(store.locks(&many).await.unwrap().into_iter().collect::<Vec<_>>(), [(all[4], "a==1".to_owned())]);
        assert!(store.locks(&[]).await.unwrap().is_empty() && store.bundles_numbered(&[]).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn only_what_nobody_has_done_anything_with_is_removed_as_such() {
    each(async |store| {
        let about = About { name: "x", title: "", description: "", access: "acl", settings: "{}", is_locked: false };
        let make = async |guid: &str, about: About<'_>| {
            store.create_content(guid, "o", about, &DEED).await.unwrap();
            store.content(guid).await.unwrap().unwrap()
        };
        let [bare, titled, changed, full, tagged] = [
            make("a", about).await,
            make("b", About { name: "b", title: "B", ..about }).await,
            make("c", About { name: "c", ..about }).await,
            make("d", About { name: "d", ..about }).await,
            make("e", About { name: "e", ..about }).await,
        ];
        let removed = async |row: &ContentRow, since| store.remove_untouched(row.id, since, &DEED).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        store.set_variables(changed.id, &[("A".to_owned(), Some("b".to_owned()))], false, &DEED).await.unwrap();
        let new = NewBundle { content_id: full.id, sha256: "aa", md5: "m", size: 1, manifest: "{}", metadata: "{}" };
        store.create_bundle(new, None, &DEED).await.unwrap();
        let tag = store.create_tag("t", None, &DEED).await.unwrap();
        store.set_tag(tagged.id, tag, true, &DEED).await.unwrap();
        for row in [&titled, &changed, &full, &tagged] {
            assert!(!removed(row, 0).await, "{}", row.name);
        }
        assert!(!removed(&bare, bare.created_at).await, "it is older");
        assert!(removed(&bare, bare.created_at - 1).await && !removed(&bare, 0).await);
        assert_eq!(store.contents(None, None).await.unwrap().len(), 4);
    })
    .await;
}
