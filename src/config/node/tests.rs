use super::*;

fn loaded(text: &str) -> Result<Settings, Report> {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a folder");
    let key = dir.path().join("node.key");
    std::fs::write(&key, "x").expect("written");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("closed");
    let file = dir.path().join("node.toml");
    std::fs::write(&file, text).expect("written");
    load(&file)
}

const GOOD: &str =
    "role = \"node\"\nkey_file = \"node.key\"\n[[listener]]\nname = \"http\"\naddress = \"127.0.0.1:0\"\n";

#[test]
fn little_needs_to_be_said() {
    let settings = loaded(GOOD).unwrap_or_else(|report| panic!("{report}"));
    assert!(matches!(&settings.database.url, DatabaseUrl::Sqlite(path) if path.ends_with("data/bowline.db")));
    assert!(matches!(&settings.storage.packages.at, Where::Directory(path) if path.ends_with("data/blobs")));
    assert_eq!(settings.packages.file_bytes_max, 4 << 30);
}

#[test]
fn every_mistake_is_told_at_once_and_no_password_with_it() {
    let text = GOOD.replace("node.key", "other.key").replace("role = \"node\"", "role = \"node\"\ncolour = 1")
        + "[database]\nurl = \"mysql://root:hunter2@db/x\"\n";
    let report = loaded(&text).expect_err("mistakes");
    let told = report.to_string();
    assert_eq!(report.problems.len(), 3, "{told}");
    assert!(
        told.contains("unknown key `colour`") && told.contains("bowline keygen") && !told.contains("hunter2"),
        "{told}"
    );
}

#[test]
fn the_example_shows_every_key_and_loads() {
    use crate::config::schema::{Role, example, json_schema};
    let text = example(Role::Node)
        .replace("keys/node.key", "node.key")
        .replace("keys/mail.password", "node.key")
        .replace("keys/bootstrap.key", "node.key");
    let settings = loaded(&text).unwrap_or_else(|report| panic!("{report}\n{text}"));
    assert_eq!(settings.external_url.as_deref(), Some("https://packages.example.org"));
    assert_eq!(json_schema(Role::Node)["properties"]["role"]["enum"][0], "node");
}

#[test]
fn a_proxys_file_is_told_from_a_nodes() {
    let report = loaded(&GOOD.replace("\"node\"", "\"proxy\"")).expect_err("another role");
    assert!(report.problems[0].message.contains("configures a proxy"), "{report}");
}

#[test]
fn each_content_has_a_user_of_its_own_and_the_same_one_on_every_node() {
    let content = |more: &str| loaded(&format!("{GOOD}[content]\n{more}")).unwrap_or_else(|r| panic!("{r}")).content;
    let own = content("");
    assert_eq!([1, 2, 65_535, -1].map(|number| own.uid_of(number)), [2, 3, 1, 65_535].map(|n| 1_900_000_000 + n));
    assert!((-70_000..70_000).all(|number| own.uid_of(number) > own.uid), "what makes environments is somebody else");
    let one = content("uid = 65534\n");
    assert_eq!((one.uid_of(1), one.uid_of(2)), (65_534, 65_534));
    let last = content("uid = 4294967294\nuid_count = 9\n");
    assert!((0..20).all(|number| last.uid_of(number) < u32::MAX), "no number that means nobody at all");
    let few = content("uid = 1000\nuid_count = 3\nnetwork = \"outbound\"\nnetwork_denied = [\"10.0.0.0/8\"]\n");
    assert_eq!([1, 2, 3].map(|number| few.uid_of(number)), [1002, 1001, 1002]);
    assert_eq!((few.network, few.network_denied.len()), (Network::Outbound, 1));
}

#[test]
fn what_content_is_made_of_may_be_elsewhere_and_is_with_the_rest_by_itself() {
    let storage = |more: &str| loaded(&format!("{GOOD}{more}")).unwrap_or_else(|r| panic!("{r}")).storage;
    for more in ["", "[storage.default]\npath = \"x\"\n", "[storage.default]\nencrypt = true\n"] {
        let all = storage(more);
        assert!(all.packages == all.bundles && !all.is_split(), "{all:?}");
    }
    let apart = storage("[storage.default]\npath = \"x\"\n[storage.bundles]\npath = \"y\"\nencrypt = true\n");
    assert!(apart.is_split() && apart.bundles.encrypt && !apart.packages.encrypt, "{apart:?}");
    let sealed = storage("[storage.bundles]\nencrypt = true\n");
    assert!(!sealed.is_split() && sealed.bundles.encrypt && !sealed.packages.encrypt, "{sealed:?}");
    let bucket = storage("[storage.bundles]\ntype = \"s3\"\nbucket = \"b\"\n");
    assert!(matches!((&bucket.packages.at, &bucket.bundles.at), (Where::Directory(_), Where::S3(_))), "{bucket:?}");

    let refused = |more: &str| loaded(&format!("{GOOD}{more}")).expect_err("a mistake").to_string();
    let nowhere = "[storage.default]\npath = \"x\"\n[storage.bundles]\nencrypt = true\n";
    assert!(refused(nowhere).contains("does not say where it is"), "{}", refused(nowhere));
    let untyped = "[storage.bundles]\nbucket = \"b\"\n";
    assert!(refused(untyped).contains("type = \"s3\""), "{}", refused(untyped));
    let unnamed = "[storage.bundles]\ntype = \"s3\"\n";
    assert!(refused(unnamed).contains("needs a bucket"), "{}", refused(unnamed));
}
