//! Whole files: what loads, and what is said of those that do not.

mod mistakes;
mod mutations;

use super::schema::Role;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::preset::{Preset, behind};
use super::proxy::{Policy, Pool, ProbeKind, Settings};
use super::report::{Problem, Report};
use super::source::Source;
use super::{load, load_with, read, schema};

/// A folder in which everything that examples name is there.
fn site() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for folder in ["certs", "keys", "open"] {
        fs::create_dir(dir.path().join(folder)).expect("made");
    }
    fs::write(dir.path().join("internal-ca.pem"), "").expect("written");
    for (file, mode) in [("keys/affinity.key", 0o600), ("open/affinity.key", 0o640)] {
        let file = dir.path().join(file);
        fs::write(&file, "").expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("changed");
    }
    dir
}

/// Reads `text` as the file `proxy.toml` in `folder`.
fn read_text(text: impl Into<Vec<u8>>, folder: &Path) -> Result<Settings, Report> {
    read_warned(text, folder).map(|(settings, _)| settings)
}

/// As [`read_text`], with the warnings.
fn read_warned(text: impl Into<Vec<u8>>, folder: &Path) -> Result<(Settings, Report), Report> {
    read(&Source::new("proxy.toml".to_owned(), text.into())?, folder, |_| Vec::new())
}

fn conf(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(name)).expect("readable")
}

#[test]
fn the_full_example_and_the_schema_are_what_the_program_prints() {
    assert!(conf("full.toml") == schema::example(Role::Proxy), "run `bowline schema proxy --example > conf/full.toml`");
    assert!(
        conf("schema.json") == schema::json_schema_text(Role::Proxy),
        "run `bowline schema proxy > conf/schema.json`"
    );
}

#[test]
fn every_example_loads_beside_the_files_it_names() {
    let dir = site();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let mut count = 0;
    for entry in fs::read_dir(folder).expect("readable") {
        let file = entry.expect("readable").path();
        if file.extension().is_some_and(|extension| extension == "toml") {
            // Those of nodes are started by `tests/it/conf.rs`.
            if !fs::read_to_string(&file).expect("readable").contains("\nrole = \"proxy\"") {
                continue;
            }
            let copy = dir.path().join(file.file_name().expect("a file has a name"));
            fs::copy(&file, &copy).expect("copied");
            load(&copy).unwrap_or_else(|report| panic!("{report}"));
            count += 1;
        }
    }
    assert!(count >= 3, "proxy, shiny and full are there");
}

#[test]
fn the_defaults_in_the_full_example_are_what_is_used() {
    let dir = site();
    let full = read_text(schema::write_example(Role::Proxy, true), dir.path()).expect("loads");
    let short = schema::write_example(Role::Proxy, false);
    assert!(!short.contains("head_bytes"), "defaults are left out");
    let short = read_text(short, dir.path()).expect("loads");
    assert_eq!(full, short);
}

#[test]
fn the_schema_knows_every_key_of_the_examples() {
    fn refuse_strangers(schema: &serde_json::Value, value: &toml::Value, path: &str) {
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    let property = &schema["properties"][key];
                    assert!(property.is_object(), "{path}.{key} is not in the schema");
                    refuse_strangers(property, value, &format!("{path}.{key}"));
                }
            }
            toml::Value::Array(array) => array.iter().for_each(|v| refuse_strangers(&schema["items"], v, path)),
            _ => {}
        }
    }
    let schema = schema::json_schema(Role::Proxy);
    for name in ["full.toml", "proxy.toml", "shiny.toml"] {
        refuse_strangers(&schema, &toml::Value::Table(conf(name).parse().expect("TOML")), name);
    }
    assert_eq!(schema["properties"]["shutdown"]["properties"]["deadline"]["default"], "8h");
    assert_eq!(schema["properties"]["pool"]["items"]["required"], serde_json::json!(["name", "backend"]));
}

fn pool(lines: &str) -> Pool {
    let text = format!(
        r#"
role = "proxy"
listener = [{{ name = "http", address = "127.0.0.1:0" }}]
route = [{{ pool = "app" }}]
[[pool]]
name = "app"
backend = [{{ key = "a", address = "127.0.0.1:1" }}]
{lines}
"#
    );
    let dir = site();
    let mut settings = read_text(text, dir.path()).unwrap_or_else(|report| panic!("{report}"));
    settings.live.pools.remove(0)
}

fn http_probe(path: &str) -> Option<ProbeKind> {
    Some(ProbeKind::Http { path: path.to_owned(), host: None, status: (200, 399) })
}

#[test]
fn each_preset_fills_its_defaults() {
    use Policy::{LeastRequests, LeastSessions};
    // preset, path of the probe, affinity, policy, shim, X-RSC-Request
    let table = [
        ("bowline", "/__ping__", true, LeastSessions, false, true),
        ("shiny", "/", true, LeastSessions, true, false),
        ("connect", "/__ping__", true, LeastSessions, false, true),
        ("package-manager", "/__ping__", false, LeastRequests, false, false),
        ("workbench", "/health-check", true, LeastSessions, false, false),
        ("shiny-server", "/ping", true, LeastSessions, false, false),
    ];
    for (preset, path, is_sticky, policy, shim, rsc) in table {
        let pool = pool(&format!("preset = \"{preset}\""));
        assert_eq!(pool.probe.map(|probe| probe.kind), http_probe(path), "{preset}");
        assert_eq!(pool.affinity.is_some(), is_sticky, "{preset}");
        assert_eq!((pool.policy, pool.reconnect_shim, pool.rsc_request), (policy, shim, rsc), "{preset}");
    }
    let plain = pool("");
    assert_eq!(plain.probe.map(|probe| probe.kind), Some(ProbeKind::Tcp));
    assert_eq!((plain.affinity, plain.policy, plain.reconnect_shim), (None, LeastSessions, false));
}

#[test]
fn what_is_written_wins_over_the_preset() {
    let changed = pool(
        r#"preset = "shiny"
           policy = "round_robin"
           reconnect_shim = false
           rsc_request = true
           affinity.cookie.enabled = false
           probe.type = "tcp""#,
    );
    assert_eq!(changed.probe.map(|probe| probe.kind), Some(ProbeKind::Tcp));
    assert_eq!(changed.affinity, None);
    assert_eq!((changed.policy, changed.reconnect_shim, changed.rsc_request), (Policy::RoundRobin, false, true));
    assert!(behind(Some(Preset::Shiny)).reconnect_shim, "the preset says otherwise");
    assert_eq!(pool("preset = \"shiny\"\nprobe.enabled = false").probe, None);
}

#[test]
fn affinity_is_switched_on_by_its_table() {
    let cookie = pool("affinity.cookie = { lifetime = \"1day\" }").affinity.expect("bound");
    assert_eq!((cookie.name.as_str(), cookie.lifetime), ("bowline_app", Some(Duration::from_secs(86_400))));
    assert!(cookie.key_file.is_absolute() && cookie.key_file.ends_with("keys/affinity.key"), "{cookie:?}");
    assert_eq!(pool("affinity = {}").affinity, None);
}

#[test]
fn a_probe_with_a_path_is_an_http_probe() {
    assert_eq!(pool("probe.path = \"/up\"").probe.map(|probe| probe.kind), http_probe("/up"));
    assert_eq!(pool("probe.type = \"http\"").probe.map(|probe| probe.kind), http_probe("/"));
}

#[test]
fn a_short_interval_shortens_the_fast_one() {
    let probe = pool("probe.interval = \"200ms\"").probe.expect("probed");
    assert_eq!((probe.interval, probe.fast_interval), (Duration::from_millis(200), Duration::from_millis(200)));
}

#[test]
fn a_listener_that_only_redirects_needs_no_route() {
    let text = r#"
role = "proxy"
listener = [{ name = "http", address = "[::]:80", redirect_to_https = 443 }]
"#;
    let settings = read_text(text, Path::new("/")).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(settings.live.listeners[0].redirect_to_https, Some(443));
    assert_eq!(settings.live.routes, []);
}

#[test]
fn a_file_that_cannot_be_read_has_no_position() {
    let dir = site();
    for file in ["missing.toml", "certs"] {
        let report = load(&dir.path().join(file)).expect_err("cannot be read");
        assert!(report.problems[0].message.starts_with("cannot be read: "), "{report}");
        assert_eq!((report.problems[0].line, report.problems[0].column), (None, None));
    }
}

#[test]
fn relative_paths_are_those_of_the_files_folder_and_become_absolute() {
    let dir = site();
    let file = dir.path().join("proxy.toml");
    fs::write(&file, conf("proxy.toml")).expect("written");
    let settings = load(&file).unwrap_or_else(|report| panic!("{report}"));
    let tls = settings.live.listeners[0].tls.as_ref().expect("https");
    assert_eq!(tls.certificates, dir.path().join("certs"));
    assert_eq!(settings.startup.admin.socket, Some(dir.path().join("admin.sock")));
}

#[test]
fn problems_of_named_files_stand_among_the_others_where_the_file_is_named() {
    let dir = site();
    let file = dir.path().join("proxy.toml");
    fs::write(&file, conf("proxy.toml").replace("probe.path", "probe.paht")).expect("written");
    let report = load_with(&file, |settings| {
        let certificates = &settings.live.listeners[0].tls.as_ref().expect("https").certificates;
        let key_file = &settings.live.pools[0].affinity.as_ref().expect("sticky").key_file;
        vec![
            Problem::about(key_file.display().to_string(), "no key in it", "remove it"),
            Problem::about(certificates.join("a.pem").display().to_string(), "no certificate in it", "remove it"),
            Problem::about("/elsewhere", "strange", "look"),
        ]
    })
    .expect_err("wrong");
    let text = report.to_string().replace(&dir.path().display().to_string(), "DIR");
    insta::assert_snapshot!(text);
}

#[test]
fn a_file_full_of_mistakes_is_told_all_of_them() {
    let dir = site();
    let report = read_text(include_str!("tests/mistakes.toml"), dir.path()).expect_err("full of mistakes");
    let text = report.to_string().replace(&dir.path().display().to_string(), "DIR");
    insta::assert_snapshot!(text);
    assert_eq!(report.lines().len(), report.problems.len());
    assert!(report.lines().iter().all(|line| !line.contains('\n') && line.ends_with(')')), "{:#?}", report.lines());
}

#[test]
fn what_is_no_toml_is_told_with_every_place() {
    let report =
        read_text("role = \"proxy\nthreads = = 4\n[[listener]\nname 3\n", Path::new("/")).expect_err("no TOML");
    insta::assert_snapshot!(report);
}
