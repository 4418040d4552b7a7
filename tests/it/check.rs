//! What is wrong with a configuration is said all at once, with its place and what would be right.

use crate::harness::{Authority, Folder, bowline};

use crate::harness::within;

/// A configuration with a mistake of every kind; the expected report names each line by its marker.
const WRONG: &str = r#"role = "proxy"
colour = "red"

[admin]
address = "localhost:9443"

[[listener]]
name = "web"
address = "127.0.0.1:8080"
protocol = "htp"

[[listener]]
name = "web"
address = "127.0.0.1:8080"
protocol = "http"
limits = { head_timeout = 15, head_bytes = "64 parsecs" }

[[listener]]
name = "tls"
address = "127.0.0.1:8443"
protocol = "https"
tls.certificates = "nowhere"

[[pool]]
name = "shiny"
polcy = "least_sessions"
retries = "many"
affinity.cookie = { key_file = "open.key" }
backend = [
    { key = "a", address = "10.0.0.1:80" },
    { key = "a", address = "10.0.0.2:80" },
    { key = "c d", address = "10.0.0.3" },
]

[[pool]]
name = "empty"
backend = []

[[route]]
pool = "shinny"

[[route]]
host = "a.example.org"
path = "no-slash"
pool = "shiny"
"#;

#[test]
fn every_problem_is_told_together_with_its_place() {
    within(60, async {
        let folder = Folder::new();
        folder.write("open.key", "not a key");
        std::fs::set_permissions(folder.path("open.key"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        let file = folder.write("wrong.toml", WRONG);
        let file = file.to_str().unwrap();
        let report = bowline(&["check", file]).await;
        assert_eq!(report.code, Some(78), "{report:?}");
        let said = format!("{}{}", report.stdout, report.stderr);
        let line = |mark: &str| 1 + WRONG.lines().position(|l| l.contains(mark)).unwrap();
        for (mark, words) in [
            ("colour", "colour"),
            ("localhost:9443", "localhost:9443"),
            ("\"htp\"", "htp"),
            ("head_timeout = 15", "head_timeout"),
            ("64 parsecs", "64 parsecs"),
            ("polcy", "did you mean `policy`"),
            ("\"many\"", "retries"),
            ("10.0.0.3\"", "10.0.0.3"),
            ("c d", "c d"),
            ("no-slash", "no-slash"),
        ] {
            let place = format!("{file}:{}:", line(mark));
            let block = said.split(file).find(|b| b.starts_with(&format!(":{}:", line(mark))) && b.contains(words));
            assert!(block.is_some(), "nothing at {place} says {words}:\n{said}");
        }
        let problems: Vec<_> =
            bowline(&["check", file, "--json"]).await.json()["files"][0]["problems"].as_array().unwrap().clone();
        assert!(problems.len() >= 10, "{problems:#?}");
        for problem in &problems {
            assert!(problem["file"].as_str().unwrap().ends_with("wrong.toml"), "{problem}");
            assert!(!problem["remedy"].as_str().unwrap().is_empty(), "{problem}");
            assert!(problem["line"].is_u64() && problem["column"].is_u64(), "{problem}");
        }
        // A proxy refuses in the same words.
        let refused = bowline(&["proxy", "-c", file]).await;
        assert_eq!(refused.code, Some(78), "{refused:?}");
        assert!(refused.stderr.contains("htp") && refused.stderr.contains("no-slash"), "{refused:?}");
    });
}

/// A file without mistakes, to put one in.
const RIGHT: &str = r#"role = "proxy"

[[listener]]
name = "web"
address = "127.0.0.1:8080"
protocol = "http"

[[listener]]
name = "tls"
address = "127.0.0.1:8443"
protocol = "https"
tls.certificates = "certs"

[[pool]]
name = "app"
affinity.cookie = { key_file = "affinity.key" }
backend = [ { key = "a", address = "10.0.0.1:80" } ]

[[route]]
pool = "app"
"#;

#[test]
fn problems_between_values_and_with_files_are_told() {
    within(120, async {
        let (ca, folder) = (Authority::new(), Folder::new());
        ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        let check = async |text: &str| {
            let file = folder.write("proxy.toml", text);
            let report = bowline(&["check", file.to_str().unwrap()]).await;
            (report.code, report.stdout + &report.stderr)
        };
        let (code, said) = check(RIGHT).await;
        assert_eq!(code, Some(0), "{said}");
        for (old, new, words) in [
            ("pool = \"app\"", "pool = \"ap\"", "did you mean `app`"),
            ("name = \"tls\"", "name = \"web\"", "web"),
            ("127.0.0.1:8443", "127.0.0.1:8080", "127.0.0.1:8080"),
            ("[[route]]", "[[route]]\npool = \"app\"\n[[route]]", "route"),
            ("[[route]]", "[[pool]]\nname = \"app\"\nbackend = [{ key = \"x\", address = \"a:1\" }]\n[[route]]", "app"),
            ("tls.certificates = \"certs\"", "tls.certificates = \"nowhere\"", "nowhere"),
            ("tls.certificates = \"certs\"", "", "certificates"),
            (
                "affinity.key\" }",
                "affinity.key\" }\ntls = { ca_file = \"missing.pem\", server_name = \"a.b\" }",
                "missing.pem",
            ),
            ("protocol = \"http\"", "protocol = \"http\"\ntls.certificates = \"certs\"", "tls"),
        ] {
            assert!(RIGHT.contains(old), "{old}");
            let (code, said) = check(&RIGHT.replacen(old, new, 1)).await;
            assert_eq!(code, Some(78), "{new:?}: {said}");
            assert!(said.contains(words), "{new:?} is not named by {words:?}: {said}");
        }
        // Two routes of one host with cookies of one name would overwrite each other.
        let clash = RIGHT.to_owned()
            + "[[pool]]\nname = \"two\"\naffinity.cookie = { name = \"bowline_app\", key_file = \"affinity.key\" }\n\
               backend = [ { key = \"a\", address = \"a:1\" } ]\n[[route]]\npath = \"/two\"\npool = \"two\"\n";
        let (code, said) = check(&clash).await;
        assert_eq!((code, said.contains("bowline_app")), (Some(78), true), "{said}");

        // A key ring everybody may read.
        folder.write("affinity.key", "x");
        std::fs::set_permissions(folder.path("affinity.key"), std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .unwrap();
        let (code, said) = check(RIGHT).await;
        assert_eq!((code, said.contains("affinity.key")), (Some(78), true), "{said}");
        folder.remove("affinity.key");

        // Certificates: another's key, no key, no certificate, expired.
        folder.write("certs/localhost.key", ca.pair(&["localhost"]).key_pem);
        let (code, said) = check(RIGHT).await;
        assert_eq!((code, said.contains("localhost")), (Some(78), true), "{said}");
        folder.remove("certs/localhost.key");
        let (code, said) = check(RIGHT).await;
        assert_eq!((code, said.contains("localhost")), (Some(78), true), "{said}");
        folder.write("certs/localhost.crt", "-----BEGIN CERTIFICATE-----\nbm90IG9uZQ==\n-----END CERTIFICATE-----\n");
        assert_eq!(check(RIGHT).await.0, Some(78));
        ca.pair_until(&["localhost"], 2020).write(&folder, "certs/localhost");
        let (code, said) = check(RIGHT).await;
        assert_eq!(code, Some(0), "an expired one is served, with a warning: {said}");
        assert!(said.contains("expired"), "{said}");
    });
}

#[test]
fn files_that_are_none_are_told_like_any_problem() {
    within(60, async {
        let folder = Folder::new();
        let missing = folder.path("missing.toml");
        let binary = folder.write("binary.toml", [0xff, 0xfe, 0, 1, 2]);
        let empty = folder.write("empty.toml", "");
        let broken = folder.write("broken.toml", "role = \"proxy\"\n[[listener]\n");
        let node = folder.write("node.toml", "role = \"nothing\"\n");
        let huge = folder.write("huge.toml", "# comment\n".repeat(2_000_000));
        for file in [&missing, &binary, &empty, &broken, &node, &huge] {
            let report = bowline(&["check", file.to_str().unwrap()]).await;
            assert_eq!(report.code, Some(78), "{}: {report:?}", file.display());
            let said = report.stdout + &report.stderr;
            assert!(said.contains(file.file_name().unwrap().to_str().unwrap()), "{said}");
            assert!(!said.contains("panicked"), "{said}");
        }
        let report = bowline(&["check", broken.to_str().unwrap()]).await;
        assert!((report.stdout + &report.stderr).contains("broken.toml:2:"), "TOML's own mistakes have a place");
        // Several files, one report.
        let both = bowline(&["check", broken.to_str().unwrap(), node.to_str().unwrap()]).await;
        let said = both.stdout + &both.stderr;
        assert_eq!((both.code, said.contains("broken.toml"), said.contains("node.toml")), (Some(78), true, true));
    });
}

#[test]
fn a_missing_key_ring_is_made_and_told() {
    within(60, async {
        let origin = crate::harness::Origin::start("a");
        let proxy = crate::harness::Proxy::start(&crate::harness::Site::new(&[&origin]).text()).await;
        let mode = std::fs::metadata(proxy.folder.path("affinity.key")).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o600);
        assert!(proxy.stderr().contains("affinity.key"), "{}", proxy.stderr());
    });
}
