//! What a node makes of the filesystem it is put on: the real binary, in a mount namespace of its own where the kernel's table
//! of mounts is one we wrote.

use std::sync::Arc;

use serde_json::Value;

use crate::harness::{Folder, Node, Postgres, bowline, bowline_by, run, tool, within};

/// What `sh` runs the program by so that it finds this on the folder; `None` where nobody may have such a namespace here:
/// then nothing was looked at, which is a failure where `BOWLINE_TEST_STRICT` is set.
async fn believing(folder: &Folder, name: &str, kind: &str, options: &str) -> Option<String> {
    let at = folder.root().canonicalize().unwrap();
    let table = format!(
        "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n40 22 0:35 / {} rw,noatime - {kind} nas:/export rw,{options}\n",
        at.display()
    );
    let file = folder.write(&format!("{name}.mounts"), &table);
    let unshare = if rustix::process::geteuid().is_root() { "-m" } else { "-Umr" };
    let script = format!(
        "exec unshare {unshare} sh -c 'mount --bind {} /proc/$$/mountinfo && exec \"$0\" \"$@\"' \"$0\" \"$@\"",
        file.display()
    );
    let seen = run(&tool("sh"), &["-c", &script, "cat", "/proc/self/mountinfo"], "").await;
    if seen.code != Some(0) {
        assert!(["not permitted", "denied"].iter().any(|why| seen.stderr.contains(why)), "{seen:?}");
        assert!(std::env::var_os("BOWLINE_TEST_STRICT").is_none(), "nobody may have mounts of its own here: {seen:?}");
        eprintln!("nobody may have mounts of its own here; nothing was looked at: {}", seen.stderr);
        return None;
    }
    assert_eq!(seen.stdout, table);
    Some(script)
}

#[test]
fn a_node_on_sqlite_refuses_a_network_filesystem_and_says_what_to_do() {
    within(60, async {
        let folder = Arc::new(Folder::new());
        let Some(far) = believing(&folder, "far", "nfs4", "vers=4.2,hard").await else { return };
        let near = believing(&folder, "near", "xfs", "attr2").await.unwrap();
        let node = Node::start_by(&near, "a", Arc::clone(&folder), "").await;
        let config = node.config();
        drop(node);

        std::fs::remove_dir_all(folder.path("data")).unwrap();
        let at = folder.root().canonicalize().unwrap();
        for verb in [&["node"][..], &["repo", "list"], &["migrate"], &["doctor"]] {
            let refused = bowline_by(&far, &[verb, &["-c", &config]].concat()).await;
            let told = refused.stderr.contains(&format!("is on a network filesystem (nfs4 at {})", at.display()))
                && refused.stderr.contains("put it on a disk of this machine, or use PostgreSQL");
            assert!(refused.code == Some(1) && told, "{verb:?}: {refused:?}");
        }
        assert!(!folder.path("data").join("bowline.db").exists(), "nothing was made there");

        // Its files may be there, if the database is not.
        let elsewhere = Folder::new();
        let url = format!("[database]\nurl = \"sqlite:{}\"\n", elsewhere.path("b.db").display());
        Node::start_by(&far, "b", folder, &url).await;
    });
}

#[test]
fn the_doctor_judges_how_each_node_has_mounted_its_storage() {
    within(90, async {
        let folder = Arc::new(Folder::new());
        let database = Postgres::start();
        let more = format!("[database]\nurl = \"{}\"\n", database.url());
        let mounted = [
            ("fresh", "nfs4", "vers=4.2,hard,lookupcache=pos", "ok", "on NFS 4.2"),
            ("short", "nfs", "vers=3,hard,actimeo=3", "ok", "on NFS 3"),
            ("usual", "nfs4", "vers=4.2,hard", "warn", "remembered for up to a minute"),
            ("soft", "nfs4", "vers=4.2,soft,lookupcache=pos", "fail", "loses writes"),
            ("local", "ext4", "errors=remount-ro", "", ""),
        ];
        let mut nodes = Vec::new();
        for (name, kind, options, ..) in mounted {
            let Some(script) = believing(&folder, name, kind, options).await else { return };
            nodes.push(Node::start_by(&script, name, Arc::clone(&folder), &more).await);
        }
        let done = bowline(&["doctor", "--json", "-c", &nodes[0].config()]).await;
        assert_eq!(done.code, Some(1), "one is mounted soft");
        let told: Value = done.json();
        let of_nfs: Vec<&Value> = told["checks"].as_array().unwrap().iter().filter(|c| c["name"] == "nfs").collect();
        for (name, _, _, verdict, words) in mounted {
            let found = of_nfs.iter().find(|check| check["found"].as_str().unwrap().starts_with(&format!("{name}: ")));
            let Some(check) = found else {
                assert_eq!(name, "local", "{told}");
                continue;
            };
            assert!(check["verdict"] == verdict && check["found"].as_str().unwrap().contains(words), "{name}: {check}");
            assert_eq!(check["remedy"].is_string(), verdict != "ok", "{check}");
        }
        assert_eq!(of_nfs.len(), 4, "{told}");
    });
}
