//! Jobs and garbage, on both databases.

use super::*;

const ALIVE: Duration = Duration::from_secs(20);

fn job(slot: &str) -> NewJob<'_> {
    NewJob { kind: "build", subject: "s", input: "{}", slot }
}

async fn beats(store: &Store, id: &str) {
    let beat = Beat { id, name: id, machine: "m", started_at: 1, report: "{}" };
    store.beat(&beat, 0).await.unwrap();
}

#[tokio::test]
async fn a_job_is_claimed_once_and_again_when_its_node_is_dead() {
    each(async |store| {
        beats(&store, "a").await;
        let id = store.enqueue(job("x"), None).await.unwrap().unwrap();
        assert_eq!(store.enqueue(job("x"), Some(&DEED)).await.unwrap(), None, "its slot is taken");
        let claim = async |node: &str| store.claim("build", node, now() - micros(ALIVE)).await.unwrap();
        assert_eq!(store.claim("collect", "a", 0).await.unwrap(), None, "of another kind");
        let oldest = store.job(id).await.unwrap().unwrap().created_at;
        let waiting = [Claimable { kind: "build".into(), count: 1, oldest }];
        let claimable = async || store.claimable(now() - micros(ALIVE)).await.unwrap();
        assert_eq!(claimable().await, waiting);
        store.begin_process(new_id(), "process", "s", "{}", "nobody").await.unwrap();
        let first = claim("a").await.unwrap();
        assert_eq!(claimable().await, [], "its node lives, and a process is for nobody to claim");
        assert_eq!((first.id, first.attempt, first.deaths), (id, 1, 0));
        assert_eq!(claim("b").await, None, "its node lives");
        assert!(store.write_lines(&first, 1, &["one".into(), "two".into()]).await.unwrap());

        store.leave("a").await.unwrap();
        assert_eq!(claimable().await, waiting);
        let second = claim("b").await.unwrap();
        assert_eq!((second.id, second.attempt, second.deaths), (id, 2, 1));
        assert_eq!(store.attend(&first).await.unwrap(), Attendance::Lost);
        assert!(!store.write_lines(&first, 3, &["late".into()]).await.unwrap());
        assert!(!store.end(&first, "done", "late").await.unwrap(), "who lost it has no say");
        assert_eq!(store.last_line(id).await.unwrap(), 2);

        store.release(&second).await.unwrap();
        beats(&store, "b").await;
        let third = claim("b").await.unwrap();
        assert_eq!((third.attempt, third.deaths), (3, 1), "to give it back is not to die over it");
        assert!(store.cancel(id, &DEED).await.unwrap());
        assert_eq!(store.attend(&third).await.unwrap(), Attendance::Cancelled);
        assert!(store.end(&third, "cancelled", "why").await.unwrap());
        assert!(!store.cancel(id, &DEED).await.unwrap(), "it has ended");
        let told = store.job(id).await.unwrap().unwrap();
        assert_eq!(
            (told.state.as_str(), told.node.as_deref(), told.result.as_deref()),
            ("cancelled", Some("b"), Some("why"))
        );
        assert!(store.enqueue(job("x"), None).await.unwrap().is_some(), "its slot is free");
        assert_eq!(store.forget_jobs(i64::MAX).await.unwrap(), 1, "of each subject the last is remembered");
        assert_eq!(store.jobs(Jobs { state: Some("waiting"), ..Jobs::default() }, 10).await.unwrap().len(), 1);
        assert!(store.lines(id, 0, 10).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn when_a_job_was_last_wanted_is_not_told_of_what_had_its_subjects_name_before() {
    each(async |store| {
        let of = |input| NewJob { kind: "sync", subject: "tidy", input, slot: input };
        store.enqueue(of("{\"source\": 1}"), None).await.unwrap().unwrap();
        assert!(store.last_wanted(&of("{\"source\": 1}")).await.unwrap().is_some());
        assert_eq!(store.last_wanted(&of("{\"source\": 2}")).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_hundred_jobs_go_to_ten_claimants_once_each() {
    each(async |store| {
        beats(&store, "a").await;
        for n in 0..100 {
            store.enqueue(job(&format!("{n}")), None).await.unwrap().unwrap();
        }
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let store = store.clone();
            all.spawn(async move {
                let mut ids = Vec::new();
                while let Some(job) = store.claim("build", "a", 0).await.unwrap() {
                    ids.push(job.id);
                }
                ids
            });
        }
        let mut ids: Vec<i64> = all.join_all().await.into_iter().flatten().collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 100);
    })
    .await;
}

#[tokio::test]
async fn a_blob_is_condemned_only_while_nothing_names_it_and_named_only_when_it_is_surely_there() {
    each(async |store| {
        store.create_repository("pypi", Language::Python, true, &[], &DEED).await.unwrap();
        let source = store.repositories().await.unwrap()[0].0.upload_source.unwrap();
        let [aa, bb] = ["aa", "bb"].map(|text| [text.to_owned()]);
        let both = [aa.clone(), bb.clone()].concat();
        store.publish(&file(source, "a-1.0.tar.gz", "aa"), None, &DEED).await.unwrap();
        assert_eq!(store.named().await.unwrap(), aa.clone().into());
        store.suspect(&both).await.unwrap();
        store.acquit().await.unwrap();
        assert_eq!(store.suspects(i64::MAX).await.unwrap(), bb);
        assert!(store.suspects(0).await.unwrap().is_empty(), "not for so long");

        store.set_hold(i64::MAX, &DEED).await.unwrap();
        assert!(store.condemn(&bb).await.unwrap().is_empty(), "there is a hold");
        store.set_hold(0, &DEED).await.unwrap();
        store.suspect(&aa).await.unwrap();
        assert_eq!(store.condemn(&both).await.unwrap(), bb, "one is named");

        let publish = async |anew| store.publish(&file(source, "b-1.0.tar.gz", "bb"), anew, &DEED).await;
        for anew in [None, Some(i64::MAX)] {
            assert!(matches!(publish(anew).await, Err(StoreError::BeingDeleted)));
        }
        store.executed(&bb).await.unwrap();
        assert_eq!(store.suspects(i64::MAX).await.unwrap(), aa);
        assert!(matches!(publish(None).await, Err(StoreError::Deleted)), "whoever kept it may have seen the old one");
        assert!(store.condemn(&bb).await.unwrap().is_empty(), "it is gone");
        assert!(matches!(publish(Some(0)).await, Err(StoreError::Deleted)), "kept before the sentence");
        assert_eq!(publish(Some(store.clock().await.unwrap())).await.unwrap(), Published::New);
        assert_eq!(store.named().await.unwrap().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn downloads_add_up() {
    each(async |store| {
        let row = |day, version: &str, client, count| Downloads {
            repository: 7,
            day,
            package: "a".into(),
            version: version.into(),
            client,
            count,
        };
        store.add_downloads(&[row(10, "1.0", "pip", 2), row(10, "1.1", "uv", 1)]).await.unwrap();
        store.add_downloads(&[row(10, "1.0", "pip", 3), row(11, "1.0", "pip", 1)]).await.unwrap();
        let by = async |by, since| store.downloads(7, Some("a"), since, by, 10).await.unwrap();
        assert_eq!(by(By::Day, 0).await, [("10".into(), 6), ("11".into(), 1)]);
        assert_eq!(by(By::Version, 0).await, [("1.0".into(), 6), ("1.1".into(), 1)]);
        assert_eq!(by(By::Client, 11).await, [("pip".into(), 1)]);
        assert_eq!(store.downloads(7, None, 0, By::Package, 10).await.unwrap(), [("a".into(), 7)]);
        assert!(store.downloads(8, None, 0, By::Package, 10).await.unwrap().is_empty());
        store.forget_downloads(11).await.unwrap();
        assert_eq!(by(By::Day, 0).await, [("11".into(), 1)]);
    })
    .await;
}

#[tokio::test]
async fn what_each_node_is_asked_ends_with_the_last_of_them() {
    each(async |store| {
        beats(&store, "a").await;
        let nodes = ["a", "b"].map(|name| (name.to_owned(), format!("node {name}")));
        let job = NewJob { kind: "cache", subject: "s", input: "{}", slot: "one" };
        let id = store.send_errands(job, &nodes, &DEED).await.unwrap().unwrap();
        assert_eq!(store.send_errands(job, &nodes, &DEED).await.unwrap(), None, "its slot is taken");
        assert_eq!(store.claimable(i64::MAX).await.unwrap(), [], "it is for nobody to claim");
        let errands = store.errands().await.unwrap();
        let told: Vec<_> = errands.iter().map(|e| (e.node.as_str(), e.name.as_str(), e.seen_at.is_some())).collect();
        assert_eq!(told, [("a", "node a", true), ("b", "node b", false)]);
        store.answer_errand(&errands[0], Ok("one")).await.unwrap();
        store.answer_errand(&errands[0], Err("again")).await.unwrap();
        assert_eq!(store.job(id).await.unwrap().unwrap().state, "running");
        store.answer_errand(&errands[1], Err("two")).await.unwrap();
        let row = store.job(id).await.unwrap().unwrap();
        assert_eq!((row.state.as_str(), row.result.as_deref()), ("failed", Some("two")));
        let lines: Vec<String> = store.lines(id, 0, 10).await.unwrap().into_iter().map(|line| line.text).collect();
        assert_eq!(lines, ["one", "two"]);
        assert!(store.errands().await.unwrap().is_empty());

        let id = store.send_errands(job, &nodes[..1], &DEED).await.unwrap().expect("its slot is free");
        let errand = store.errands().await.unwrap().pop().unwrap();
        store.answer_errand(&errand, Ok("one")).await.unwrap();
        assert_eq!(store.job(id).await.unwrap().unwrap().state, "done");
    })
    .await;
}
