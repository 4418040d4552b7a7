//! The checklist of a highly available set-up, judged from what every node says of itself. Pure.

use serde::Serialize;

use super::{Seen, StorageReport};

/// How a point of the list stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could.
    Warn,
    /// Something will be lost or refused.
    Fail,
}

/// One point of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// A name from a closed set, such as `same_version`.
    pub name: &'static str,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found, one sentence.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
}

fn check(name: &'static str, verdict: Verdict, found: impl Into<String>, remedy: &'static str) -> Check {
    let remedy = (verdict != Verdict::Ok).then_some(remedy);
    Check { name, verdict, found: found.into(), remedy }
}

/// What the host that asks knows itself.
#[derive(Clone, Debug)]
pub struct Here {
    /// Of the key file here.
    pub key_fingerprint: String,
    /// Of the configuration here.
    pub config_fingerprint: String,
    /// The database is one file on one machine.
    pub is_local: bool,
}

/// Judges. `nodes`: those alive.
pub fn judge(nodes: &[Seen], here: &Here) -> Vec<Check> {
    let mut list = vec![alive(nodes), names(nodes), database(nodes, here)];
    list.push(same(
        "same_version",
        "version",
        nodes.iter().map(|node| (name(node), node.row.version.clone())),
        Verdict::Warn,
        "run the same version everywhere; different ones are for the time of an update only",
    ));
    let config = nodes.iter().map(|node| (name(node), node.report.config_fingerprint.clone()));
    list.push(same(
        "same_configuration",
        "configuration",
        config.chain([("this file".to_owned(), here.config_fingerprint.clone())]),
        Verdict::Fail,
        "make `external_url`, `[packages]`, and which tables `[storage]` has and what they seal the same on every node, then \
         restart those that differ",
    ));
    let key = nodes.iter().map(|node| (name(node), node.report.key_fingerprint.clone()));
    list.push(same(
        "same_key",
        "key",
        key.chain([("this file".to_owned(), here.key_fingerprint.clone())]),
        Verdict::Fail,
        "copy the key file of one node to all others, mode 0600",
    ));
    list.extend(storage(nodes));
    list.push(clocks(nodes));
    list.extend(mounts(nodes));
    list.push(same(
        "same_account",
        "uid:gid",
        nodes.iter().map(|node| (name(node), format!("{}:{}", node.report.uid, node.report.gid))),
        Verdict::Fail,
        "give the account that runs bowline the same uid and gid on every machine",
    ));
    list.extend(content(nodes));
    list
}

/// Whether content runs on each node, and as the same everywhere.
fn content(nodes: &[Seen]) -> Vec<Check> {
    let looked = || nodes.iter().filter_map(|node| Some((node, node.report.content.as_ref()?)));
    let mut list = Vec::new();
    for (node, fitness) in looked() {
        let name = name(node);
        let versions = |language: &str, all: &[String]| match all {
            [] => format!("no {language}"),
            all => format!("{language} {}", all.join(", ")),
        };
        let uv = if fitness.has_uv { "uv" } else { "no uv, so pip" };
        let has = format!("{}, {}, {uv}", versions("Python", &fitness.python), versions("R", &fitness.r));
        list.push(match (&fitness.sandbox, &fitness.outbound) {
            (Some(why), _) => check(
                "content",
                Verdict::Warn,
                format!("{name} runs no content: {why}"),
                "install bubblewrap, and let its account make user namespaces (sysctl user.max_user_namespaces, \
                 kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns); as root, uids of \
                 `content.uid` must exist in its own user namespace",
            ),
            (None, Some(why)) => check(
                "content",
                Verdict::Warn,
                format!("{name} runs no content that reaches the network: {why}"),
                "install slirp4netns and iproute2, and let there be /dev/net/tun; or write `network = \"none\"` in `[content]`",
            ),
            (None, None) => check("content", Verdict::Ok, format!("{name} runs content: {has}"), ""),
        });
    }
    for (node, fitness) in looked() {
        if let Some(why) = &fitness.cgroups {
            list.push(check(
                "content_bounds",
                Verdict::Warn,
                format!("{} bounds content process by process, and no processors: {why}", name(node)),
                "where systemd starts the node, write `Delegate=yes` into its unit",
            ));
        }
        for (account, told) in &fitness.accounts {
            if let Err(why) = told {
                list.push(check(
                    "content_accounts",
                    Verdict::Fail,
                    format!("content does not run as `{account}` on {}: {why}", name(node)),
                    "run the node as root, make the account on every node with the same numbers, or take it out of `content.run_as`; \
                     this is looked at every minute",
                ));
            }
        }
    }
    if looked().any(|(_, fitness)| !fitness.accounts.is_empty()) {
        let told = |fitness: &crate::node::content::fit::Fitness| {
            let found =
                fitness.accounts.iter().filter_map(|(name, told)| Some(format!("{name}={}", told.as_ref().ok()?)));
            found.collect::<Vec<_>>().join(" ")
        };
        list.push(same(
            "same_content_accounts",
            "list of accounts for content",
            looked().map(|(node, fitness)| (name(node), told(fitness))),
            Verdict::Fail,
            "name the same accounts in `content.run_as` of every node; an account has the same uid, gid and groups everywhere",
        ));
    }
    if looked().next().is_some() {
        list.push(same(
            "same_content_uids",
            "range of uids",
            looked().map(|(node, fitness)| (name(node), fitness.uids.clone())),
            Verdict::Fail,
            "run the node as root on every machine or on none, with the same `uid` and `uid_count` in `[content]`",
        ));
    }
    list
}

fn alive(nodes: &[Seen]) -> Check {
    let names: Vec<String> = nodes.iter().map(name).collect();
    let verdict = if nodes.len() < 2 { Verdict::Warn } else { Verdict::Ok };
    let found = match nodes.len() {
        0 => "no node runs".to_owned(),
        1 => format!("one node runs: {}", names[0]),
        n => format!("{n} nodes run: {}", names.join(", ")),
    };
    check("nodes", verdict, found, "start a second node: with one, nothing is highly available")
}

/// Every node has a name of its own.
fn names(nodes: &[Seen]) -> Check {
    let remedy = "give every node a `name` of its own; if one of these was ended a moment ago, ask again in 20 s";
    let mut names: Vec<String> = nodes.iter().map(name).collect();
    names.sort_unstable();
    names.dedup();
    let of = |name: &String| nodes.iter().filter(|node| node.row.name == *name).collect::<Vec<_>>();
    let shared: Vec<String> = names
        .iter()
        .map(|name| (name, of(name)))
        .filter(|(_, nodes)| nodes.len() > 1)
        .map(|(name, nodes)| {
            let mut machines: Vec<&str> = nodes.iter().map(|node| node.row.machine.as_str()).collect();
            machines.sort_unstable();
            machines.dedup();
            format!("{} nodes are named {name}, on the machines {}", nodes.len(), machines.join(", "))
        })
        .collect();
    match shared.is_empty() {
        true => check("own_names", Verdict::Ok, "every node has a name of its own", remedy),
        false => check("own_names", Verdict::Warn, shared.join("; "), remedy),
    }
}

fn database(nodes: &[Seen], here: &Here) -> Check {
    let mut machines: Vec<&str> = nodes.iter().map(|node| node.row.machine.as_str()).collect();
    machines.sort_unstable();
    machines.dedup();
    let remedy = "move to PostgreSQL: set `database.url` to postgres://… on every node";
    match (here.is_local, machines.len() > 1) {
        (true, true) => check("database", Verdict::Fail, "SQLite, written by several machines", remedy),
        (true, false) => check("database", Verdict::Warn, "SQLite: one machine only", remedy),
        (false, _) => check("database", Verdict::Ok, "PostgreSQL, and every node here writes to it", remedy),
    }
}

/// All say the same.
fn same(
    check_name: &'static str,
    what: &str,
    said: impl Iterator<Item = (String, String)>,
    else_: Verdict,
    remedy: &'static str,
) -> Check {
    let said: Vec<(String, String)> = said.collect();
    let mut values: Vec<&str> = said.iter().map(|(_, value)| value.as_str()).collect();
    values.sort_unstable();
    values.dedup();
    match values.as_slice() {
        [] => check(check_name, Verdict::Ok, format!("no {what} to compare"), remedy),
        [one] => check(check_name, Verdict::Ok, format!("{what} {one}"), remedy),
        _ => {
            let all: Vec<String> = said.iter().map(|(node, value)| format!("{node}: {value}")).collect();
            check(check_name, else_, format!("more than one {what}: {}", all.join(", ")), remedy)
        }
    }
}

fn each_storage(nodes: &[Seen]) -> impl Iterator<Item = (&Seen, &String, &StorageReport)> {
    nodes.iter().flat_map(|node| node.report.storage.iter().map(move |(class, report)| (node, class, report)))
}

/// Every node sees every other's mark.
fn storage(nodes: &[Seen]) -> Vec<Check> {
    let remedy = "mount the same export, or name the same bucket, on every node, writable by its account";
    let mut list = Vec::new();
    for (node, class, report) in each_storage(nodes) {
        if let Some(error) = &report.error {
            let found = format!("{} cannot use {class} at {}: {error}", name(node), report.place);
            list.push(check("storage", Verdict::Fail, found, remedy));
            continue;
        }
        let unseen = nodes.iter().filter(|other| !report.sees.contains(&other.row.id));
        let (unseen, new): (Vec<&Seen>, Vec<&Seen>) = unseen.partition(|other| has_looked(node, other));
        let [unseen, new] = [unseen, new].map(|nodes| nodes.into_iter().map(name).collect::<Vec<_>>());
        if !new.is_empty() {
            let found = format!("{} has not looked for the mark of {} yet", name(node), new.join(", "));
            list.push(check("storage", Verdict::Warn, found, "ask again in ten seconds"));
        }
        if !unseen.is_empty() {
            let found = format!(
                "{} does not find the mark of {} in {class} at {}: they do not share it",
                name(node),
                unseen.join(", "),
                report.place
            );
            list.push(check("storage", Verdict::Fail, found, remedy));
        }
    }
    if list.is_empty() {
        list.push(check("storage", Verdict::Ok, "every node finds every node's mark", remedy));
    }
    list
}

/// Whether a node has looked at the storage since another one has made its mark.
fn has_looked(node: &Seen, other: &Seen) -> bool {
    node.row.seen_at >= other.row.started_at - other.report.clock_offset + MARKING
}

/// Microseconds from a node's start until its mark can be seen.
const MARKING: i64 = 2_000_000;

fn clocks(nodes: &[Seen]) -> Check {
    let remedy = "keep the clocks synchronised: chrony or systemd-timesyncd on every machine, the database's too";
    let worst = nodes.iter().max_by_key(|node| node.report.clock_offset.unsigned_abs());
    let Some(worst) = worst else { return check("clocks", Verdict::Ok, "no clock to compare", remedy) };
    let offset = worst.report.clock_offset;
    let verdict = match offset.unsigned_abs() {
        0..200_000 => Verdict::Ok,
        200_000..1_000_000 => Verdict::Warn,
        _ => Verdict::Fail,
    };
    let seconds = std::time::Duration::from_micros(offset.unsigned_abs()).as_secs_f64();
    let way = if offset < 0 { "behind" } else { "ahead of" };
    check("clocks", verdict, format!("{} is {seconds:.3} s {way} the database, and nobody more", name(worst)), remedy)
}

/// NFS clients believe for up to a minute that a file is not there which another node has just written.
fn mounts(nodes: &[Seen]) -> Vec<Check> {
    let mut list = Vec::new();
    for (node, class, report) in each_storage(nodes) {
        let Some(kind) = report.filesystem.as_deref().filter(|kind| kind.starts_with("nfs")) else { continue };
        let option = |name: &str| {
            report.options.iter().rev().find_map(|o| o.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
        };
        let is_fresh = option("lookupcache").is_some_and(|value| value == "pos" || value == "none")
            || report.options.iter().any(|o| o == "noac")
            || option("actimeo")
                .or_else(|| option("acdirmax"))
                .and_then(|s| s.parse::<u32>().ok())
                .is_some_and(|s| s <= 5);
        let version = option("vers").unwrap_or_else(|| if kind == "nfs4" { "4".into() } else { "3".into() });
        let is_version = version.starts_with('3') || version.starts_with('4');
        let is_soft = report.options.iter().any(|o| o == "soft");
        let said = format!("{}: {class} on NFS {version}", name(node));
        list.push(if !is_version {
            check("nfs", Verdict::Fail, said, "mount it with NFS 3 or 4")
        } else if is_soft {
            let found = format!("{said}, mounted soft: a server that is slow loses writes");
            check("nfs", Verdict::Fail, found, "mount it `hard`")
        } else if !is_fresh {
            let found = format!("{said}: absent files are remembered for up to a minute");
            check("nfs", Verdict::Warn, found, "mount it with `lookupcache=pos`, or a short `acdirmax` or `actimeo`")
        } else {
            check("nfs", Verdict::Ok, said, "")
        });
    }
    list
}

fn name(node: &Seen) -> String {
    node.row.name.clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::content::fit::Fitness;
    use crate::node::registry::Report;
    use crate::node::store::NodeRow;

    fn node(name: &str) -> Seen {
        let storage = StorageReport {
            kind: "directory".into(),
            place: "/srv".into(),
            sees: vec!["id-a".into(), "id-b".into()],
            filesystem: Some("nfs4".into()),
            options: ["rw", "vers=4.2", "hard", "lookupcache=pos"].map(Into::into).into(),
            ..Default::default()
        };
        Seen {
            row: NodeRow {
                id: format!("id-{name}"),
                name: name.into(),
                machine: format!("m-{name}"),
                version: "1".into(),
                schema_known: 1,
                started_at: 0,
                seen_at: 60_000_000,
                report: String::new(),
            },
            report: Report {
                config_fingerprint: "c".into(),
                key_fingerprint: "k".into(),
                uid: 999,
                gid: 999,
                storage: [("packages".to_owned(), storage)].into(),
                ..Default::default()
            },
        }
    }

    fn here() -> Here {
        Here { key_fingerprint: "k".into(), config_fingerprint: "c".into(), is_local: false }
    }

    fn verdicts(nodes: &[Seen], here: &Here) -> Vec<(&'static str, Verdict)> {
        let worse = judge(nodes, here).into_iter().filter(|check| check.verdict != Verdict::Ok);
        worse
            .inspect(|check| assert!(check.remedy.is_some_and(|r| !r.is_empty()), "{check:?}"))
            .map(|check| (check.name, check.verdict))
            .collect()
    }

    #[test]
    fn two_equal_nodes_on_postgres_and_nfs_are_as_they_should_be() {
        assert_eq!(verdicts(&[node("a"), node("b")], &here()), []);
    }

    #[test]
    fn every_way_to_differ_is_found() {
        let with = |change: &dyn Fn(&mut Seen)| {
            let mut b = node("b");
            change(&mut b);
            verdicts(&[node("a"), b], &here())
        };
        assert_eq!(with(&|n| n.row.name = "a".into()), [("own_names", Verdict::Warn)]);
        assert_eq!(with(&|n| n.row.version = "2".into()), [("same_version", Verdict::Warn)]);
        assert_eq!(with(&|n| n.report.config_fingerprint = "x".into()), [("same_configuration", Verdict::Fail)]);
        assert_eq!(with(&|n| n.report.key_fingerprint = "x".into()), [("same_key", Verdict::Fail)]);
        assert_eq!(with(&|n| n.report.uid = 1), [("same_account", Verdict::Fail)]);
        assert_eq!(with(&|n| n.report.clock_offset = -300_000), [("clocks", Verdict::Warn)]);
        assert_eq!(with(&|n| n.report.clock_offset = 1_500_000), [("clocks", Verdict::Fail)]);
        let apart = |n: &mut Seen| {
            let own = StorageReport { place: "/bundles".into(), ..n.report.storage["packages"].clone() };
            n.report.storage.insert("bundles".into(), own);
        };
        let alone = with(&|n| {
            apart(n);
            n.report.storage.get_mut("bundles").unwrap().sees = vec!["id-b".into()];
        });
        assert_eq!(alone, [("storage", Verdict::Fail)], "bundles are elsewhere for the other node");
        let [mut a, mut b] = [node("a"), node("b")];
        apart(&mut a);
        apart(&mut b);
        assert_eq!(verdicts(&[a, b], &here()), []);
        let storage = |change: &dyn Fn(&mut StorageReport)| with(&|n| n.report.storage.values_mut().for_each(change));
        assert_eq!(storage(&|s| s.sees = vec!["id-b".into()]), [("storage", Verdict::Fail)]);
        let new = with(&|n| {
            n.row.id = "id-new".into();
            n.row.started_at = 59_000_000;
            n.report.storage.values_mut().for_each(|s| s.sees.push("id-new".into()));
        });
        assert_eq!(new, [("storage", Verdict::Warn)], "it may be that nobody has looked since");
        assert_eq!(storage(&|s| s.error = Some("away".into())), [("storage", Verdict::Fail)]);
        assert_eq!(storage(&|s| s.options = vec!["hard".into()]), [("nfs", Verdict::Warn)]);
        assert_eq!(storage(&|s| s.options = vec!["soft".into(), "acdirmax=3".into()]), [("nfs", Verdict::Fail)]);
        assert_eq!(storage(&|s| s.options = vec!["vers=2".into()]), [("nfs", Verdict::Fail)]);
        assert_eq!(storage(&|s| s.options = vec!["actimeo=3".into()]), []);
    }

    #[test]
    fn what_keeps_content_from_running_is_told() {
        let with = |change: &dyn Fn(&mut Fitness)| {
            let mut nodes = [node("a"), node("b")];
            for node in &mut nodes {
                node.report.content = Some(Fitness { uids: "5+9".into(), ..Fitness::default() });
            }
            change(nodes[1].report.content.as_mut().unwrap());
            verdicts(&nodes, &here())
        };
        assert_eq!(with(&|_| {}), []);
        assert_eq!(with(&|f| f.sandbox = Some("no bwrap".into())), [("content", Verdict::Warn)]);
        assert_eq!(with(&|f| f.outbound = Some("no tun".into())), [("content", Verdict::Warn)]);
        assert_eq!(with(&|f| f.uids = "node".into()), [("same_content_uids", Verdict::Fail)]);
        assert_eq!(with(&|f| f.cgroups = Some("no groups".into())), [("content_bounds", Verdict::Warn)]);
        let has = |told: Result<&str, &str>| {
            let told = told.map(str::to_owned).map_err(str::to_owned);
            with(&|f| drop(f.accounts.insert("finance".into(), told.clone())))
        };
        assert_eq!(has(Ok("5:5+")), [("same_content_accounts", Verdict::Fail)]);
        assert_eq!(
            has(Err("there is none")),
            [("content_accounts", Verdict::Fail)],
            "and the same list, of none, everywhere"
        );
    }

    #[test]
    fn one_node_on_sqlite_works_but_is_not_highly_available() {
        let mut alone = node("a");
        alone.report.storage.values_mut().for_each(|s| s.sees = vec!["id-a".into()]);
        let local = Here { is_local: true, ..here() };
        assert_eq!(verdicts(&[alone], &local), [("nodes", Verdict::Warn), ("database", Verdict::Warn)]);
        let two = [node("a"), node("b")];
        assert_eq!(verdicts(&two, &local), [("database", Verdict::Fail)]);
        assert_eq!(verdicts(&[], &here()), [("nodes", Verdict::Warn)]);
    }
}
