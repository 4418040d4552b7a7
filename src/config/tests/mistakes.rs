//! One test per kind of mistake: what is said of it, and where.
//!
//! In what is put into the file, `«` marks each place that is to be reported, and nothing else may be.

use super::{read_text, read_warned, site};
use crate::config::report::Severity;

const GOOD: &str = r#"
role = "proxy"
[admin]
address = "127.0.0.1:9443"
[[listener]]
name = "web"
address = "127.0.0.1:443"
protocol = "https"
tls.certificates = "certs"
[[pool]]
name = "app"
backend = [{ key = "a", address = "10.0.0.1:80" }]
[[pool]]
name = "shiny"
preset = "shiny"
backend = [{ key = "a", address = "10.0.0.1:81" }]
[[route]]
host = "app.example.org"
pool = "app"
[[route]]
host = "shiny.example.org"
path = "/"
pool = "shiny"
"#;

/// Puts `to` in the place of `from` in a good file and expects one problem per mark, the first of which says `message`
/// and advises `remedy`.
#[track_caller]
fn told(from: &str, to: &str, message: &str, remedy: &str) {
    let marked = replaced(from, to);
    let mut places = Vec::new();
    let mut text = String::new();
    for (index, line) in marked.split('\n').enumerate() {
        let mut column = 1;
        for c in line.chars() {
            if c == '«' {
                places.push((index + 1, column));
            } else {
                column += 1;
                text.push(c);
            }
        }
        text.push('\n');
    }
    let dir = site();
    let report = read_text(text, dir.path()).expect_err("a mistake");
    let found: Vec<_> =
        report.problems.iter().map(|p| (p.line.expect("a line"), p.column.expect("a column"))).collect();
    assert_eq!(found, places, "{report}");
    let first = &report.problems[0];
    assert!(first.message.contains(message), "`{message}` is not in: {report}");
    assert!(first.remedy.contains(remedy), "`{remedy}` is not in: {report}");
}

#[track_caller]
fn fine(from: &str, to: &str) {
    let dir = site();
    read_text(replaced(from, to), dir.path()).unwrap_or_else(|report| panic!("{report}"));
}

#[track_caller]
fn replaced(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replacen(from, to, 1)
}

#[test]
fn the_file_they_are_put_into_is_good() {
    fine("", "");
}

#[test]
fn unknown_keys() {
    told("[admin]\n", "[admin]\n«adress = 1\n", "unknown key `adress` in `[admin]`", "did you mean `address`?");
    told(
        "[admin]",
        "[[«servers]]\n[admin]",
        "unknown key `servers` in the top level",
        "the keys here are `role`, `thr",
    );
    told("[admin]", "«colour = 1\n«\"\" = 2\n[admin]", "unknown key `colour`", "the keys here are");
}

#[test]
fn unknown_keys_that_belong_in_a_table_below() {
    told("protocol", "«head_bytes = \"1KiB\"\nprotocol", "unknown key `head_bytes`", "below: `limits.head_bytes`");
    told("preset", "«key_file = \"k\"\npreset", "unknown key `key_file`", "below: `affinity.cookie.key_file`");
}

#[test]
fn keys_of_the_top_level_below_a_table() {
    told(
        "[[listener]]",
        "«threads = 4\n[[listener]]",
        "unknown key `threads` in `[admin]`",
        "above the first `[table]`",
    );
}

#[test]
fn missing_keys() {
    told("\nrole = \"proxy\"", "«", "the top level has no `role`", "for example `role = \"proxy\"`");
    told("[[listener]]\nname = \"web\"\n", "«[[listener]]\n", "`[[listener]]` has no `name`", "add it");
    told(
        "tls.certificates = \"certs\"",
        "«tls.minimum = \"1.2\"",
        "`listener.tls` has no `certificates`",
        "\"certs/\"",
    );
}

#[test]
fn keys_that_are_there_twice() {
    told("name = \"web\"", "name = \"web\"\n«name = \"web\"", "the key `name` is there twice", "keep one");
}

#[test]
fn wrong_types() {
    for value in ["1", "1.5", "true", "1979-05-27", "[]", "{}"] {
        told("\"web\"", &format!("«{value}"), "`name` is a", "use 1 to 64 letters");
    }
    told("[admin]", "threads = «\"4\"\n[admin]", "`threads` is a string", "write an integer from 1 to 1024");
    told(
        "\"shiny\"\nbackend",
        "\"shiny\"\nrsc_request = «1\nbackend",
        "`rsc_request` is an integer",
        "`true` or `false`",
    );
    told("\"shiny\"\nbackend", "\"shiny\"\ntimeouts = «1\nbackend", "`timeouts` is an integer", "`timeouts = { … }`");
    told("[{ key = \"a\", address = \"10.0.0.1:80\" }]", "«\"10.0.0.1:80\"", "`backend` is a string", "`[[backend]]`");
    told("protocol", "trusted = «\"10.0.0.0/8\"\nprotocol", "`trusted` is a string", "write a list: `[ … ]`");
    told("protocol", "trusted = [«1, \"10.0.0.0/8\", «true]\nprotocol", "`trusted` is an integer", "write a network");
}

#[test]
fn numbers_out_of_range() {
    for number in ["0", "1001", "-1", "99999999999999999999", "0xffffffffffffffff"] {
        let to = format!("\"10.0.0.1:80\", weight = «{number}");
        told("\"10.0.0.1:80\"", &to, "`weight` is out of range", "from 1 to 1000");
    }
    told("protocol", "limits.head_count = «0\nprotocol", "`head_count` is out of range: `0`", "from 1 to 256");
    told("preset", "probe = { rise = «0, fall = «0 }\npreset", "`rise` is out of range", "from 1 to 1000");
    fine("\"10.0.0.1:80\"", "\"10.0.0.1:80\", weight = 0x3_E8");
}

#[test]
fn durations() {
    told("preset", "timeouts.connect = «\"5\"\npreset", "`5` is not a duration", "such as `\"30s\"`");
    told("preset", "timeouts.connect = «5\npreset", "`connect` is an integer", "such as `\"30s\"`");
    told(
        "preset",
        "timeouts.connect = «\"0s\"\npreset",
        "the duration `0s` is out of range",
        "from `\"10ms\"` to `\"10m\"`",
    );
    told("preset", "timeouts.tunnel_ping = «\"999y\"\npreset", "the duration `999y` is out of range", "");
    fine("preset", "timeouts.response = \"1m 30s\"\npreset");
}

#[test]
fn sizes() {
    told("protocol", "limits.head_bytes = «\"64\"\nprotocol", "`64` is not a size", "such as `\"64KiB\"`");
    told("protocol", "limits.head_bytes = «\"2MiB\"\nprotocol", "the size `2MiB` is out of range", "to `\"1MiB\"`");
    told("pool = \"app\"", "pool = \"app\"\nbody_bytes_max = «\"-1B\"", "`-1B` is not a size", "");
}

#[test]
fn words_that_are_none_of_the_known_ones() {
    told("\"proxy\"", "«\"node\"", "this file configures a node", "`bowline node -c`");
    told("\"proxy\"", "«\"prox\"", "`prox` is not a role", "did you mean `proxy`?");
    told("\"https\"", "«\"tls\"", "`tls` is not a protocol of a listener", "it is one of `http`, `https`");
    told("preset = \"shiny\"", "preset = «\"connnect\"", "`connnect` is not a preset", "did you mean `connect`?");
    told("preset", "policy = «\"least-sessions\"\npreset", "is not a policy", "did you mean `least_sessions`?");
    told("protocol", "tls.minimum = «\"1.1\"\nprotocol", "`1.1` is not a TLS version", "did you mean");
    told("preset", "probe.type = «\"https\"\npreset", "`https` is not a type of probe", "did you mean `http`?");
    told("81\"", "81\", admin = «\"drain\"", "`drain` is not an admin state", "`enabled`, `draining`, `disabled`");
    told("[admin]", "log.format = «\"xml\"\n[admin]", "`xml` is not a log format", "it is one of `text`, `json`");
}

#[test]
fn names_and_keys() {
    told("\"web\"", "«\"a b\"", "`a b` is not a name", "use 1 to 64 letters");
    told("\"web\"", "«\"\"", "`` is not a name", "use 1 to 64 letters");
    told("key = \"a\"", "key = «\"a/b\"", "`a/b` is not a key", "use 1 to 64 letters");
    told("preset", "affinity.cookie.name = «\"a=b\"\npreset", "`a=b` is not a cookie name", "use 1 to 128");
}

#[test]
fn addresses() {
    told("\"127.0.0.1:443\"", "«\"localhost:443\"", "is not an address to listen on", "`\"0.0.0.0:443\"`");
    told("\"10.0.0.1:80\"", "«\"10.0.0.1\"", "`10.0.0.1` is no address: expected `host:port`", "write `\"host:port\"`");
    told("\"10.0.0.1:80\"", "«\"unix:app.sock\"", "must be absolute", "`\"unix:/absolute/path\"`");
    told("\"127.0.0.1:9443\"", "«\"9443\"", "`9443` is not an IP address with a port", "`\"127.0.0.1:9443\"`");
    told("protocol", "trusted = [«\"10.0.0.0/33\"]\nprotocol", "`10.0.0.0/33` is not a network", "such as");
}

#[test]
fn dangling_pools() {
    told("pool = \"shiny\"", "pool = «\"shinny\"", "no pool named `shinny`", "did you mean `shiny`?");
    told("pool = \"shiny\"", "pool = «\"other\"", "no pool named `other`", "the pools are `app`, `shiny`");
}

#[test]
fn a_pool_whose_name_is_wrong_leaves_no_route_dangling() {
    told("name = \"shiny\"", "name = «\"sh iny\"", "`sh iny` is not a name", "");
    told("[[pool]]\nname = \"shiny\"\n", "«[[pool]]\n", "`[[pool]]` has no `name`", "");
}

#[test]
fn duplicates() {
    let third = "[[pool]]\nname = «\"app\"\nbackend = [{ key = \"a\", address = \"x:1\" }]\n[[route]]";
    told("[[route]]", third, "two pools are named `app`", "the other is in line 11");
    told(
        "\n[[pool]]",
        "\n[[listener]]\nname = «\"web\"\naddress = \"[::1]:80\"\n[[pool]]",
        "two listeners are",
        "line 6",
    );
    let two = "80\" }, { key = «\"a\", address = \"10.0.0.2:80\" ";
    told("80\" ", two, "two backends of a pool are named `a`", "the other is in line 12");
    let same = "[[route]]\nhost = \"App.Example.org.\"\npath = «\"/\"\npool = \"shiny\"\n[[route]]\nhost = \"shiny";
    told("[[route]]\nhost = \"shiny", same, "two routes are for `app.example.org/`", "line 18");
}

#[test]
fn pools_without_backends() {
    let backend = "backend = [{ key = \"a\", address = \"10.0.0.1:80\" }]";
    told(backend, "backend = «[]", "`[[pool]]` has no `backend`", "backend = [{ key");
    told(&format!("[[pool]]\nname = \"app\"\n{backend}"), "«[[pool]]\nname = \"app\"", "has no `backend`", "");
}

#[test]
fn listeners_that_clash() {
    let second = |address: &str| format!("\n[[listener]]\nname = \"b\"\naddress = {address}\n[[pool]]");
    for address in ["\"127.0.0.1:443\"", "\"0.0.0.0:443\""] {
        told(
            "\n[[pool]]",
            &second(&format!("«{address}")),
            "clashes with `127.0.0.1:443` of listener `web`",
            "in line 7",
        );
    }
    told("\n[[pool]]", &second("«\"0.0.0.0:9443\""), "clashes with `127.0.0.1:9443` of `admin.address`", "in line 4");
    fine("\n[[pool]]", &second("\"[::]:443\""));
    fine("127.0.0.1:443", "127.0.0.1:0");
    let dir = site();
    let socket = dir.path().join("admin.sock").display().to_string();
    let text = replaced("[admin]", "[admin]\nsocket = \"admin.sock\"").replace(
        "\n[[pool]]\nname = \"shiny\"",
        &format!("{}\nname = \"shiny\"", second(&format!("\"unix:{socket}\""))),
    );
    let report = read_text(text, dir.path()).expect_err("a clash");
    assert!(report.problems[0].message.contains("of `admin.socket`"), "{report}");
}

#[test]
fn backends_that_are_the_proxy_itself() {
    for address in ["127.0.0.1:443", "localhost:443", "0.0.0.0:443"] {
        told(
            "\"10.0.0.1:80\"",
            &format!("«\"{address}\""),
            "is the proxy's own listener `web`",
            "the application listens",
        );
    }
    fine("10.0.0.1:80", "127.0.0.1:444");
}

#[test]
fn what_is_used_all_the_same_but_cannot_be_meant() {
    let warned = |from: &str, to: &str, message: &str, remedy: &str| {
        let dir = site();
        let (_, report) = read_warned(replaced(from, to), dir.path()).unwrap_or_else(|report| panic!("{report}"));
        let [problem] = &report.problems[..] else { panic!("{report}") };
        assert!(problem.message.contains(message) && problem.remedy.contains(remedy), "{report}");
        assert!(problem.line.is_some() && problem.severity == Severity::Warning, "{report}");
    };
    let app = "backend = [{ key = \"a\", address = \"10.0.0.1:80\" }]";
    let twins = app.replace(" }]", " }, { key = \"b\", address = \"10.0.0.1:80\" }]");
    warned(app, &twins, "two backends of this pool have the address `10.0.0.1:80`", "in line 12");
    warned("pool = \"app\"", "pool = \"shiny\"", "no route leads to the pool `app`", "`pool = \"app\"`");
    let plain = "protocol = \"https\"\ntls.certificates = \"certs\"";
    let cookie = "affinity.cookie.cross_site = true\npreset";
    fine("preset", cookie);
    let dir = site();
    let text = replaced(plain, "redirect_to_https = 443").replace("preset", cookie);
    let (_, report) = read_warned(text, dir.path()).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(report.problems.len(), 2, "{report}");
    assert!(report.problems[0].message.contains("no listener speaks it"), "{report}");
    assert!(report.problems[1].message.contains("without https"), "{report}");
}

#[test]
fn protocols_and_what_they_need() {
    told(
        "protocol = \"https\"\ntls.certificates = \"certs\"",
        "protocol = «\"https\"",
        "an https listener needs `tls`",
        "",
    );
    told("protocol = \"https\"\ntls", "protocol = \"http\"\n«tls", "an http listener has no `tls`", "remove `tls`");
    told("protocol = \"https\"\ntls", "«tls", "a listener without `protocol` is http", "add `protocol = \"https\"`");
    told(
        "protocol",
        "redirect_to_https = «443\nprotocol",
        "an https listener has no `redirect_to_https`",
        "of its own",
    );
    told("protocol = \"https\"", "protocol = «\"htps\"", "`htps` is not a protocol", "did you mean `https`?");
}

#[test]
fn files_that_are_missing_or_of_the_wrong_kind() {
    told("\"certs\"", "«\"cert\"", "there is no folder `", "name a folder");
    told("\"certs\"", "«\"internal-ca.pem\"", "is not a folder", "name a folder");
    let tls = |file: &str| format!("tls = {{ server_name = \"x\", ca_file = «\"{file}\" }}\npreset");
    told("preset", &tls("ca.pem"), "ca.pem` cannot be read: No such file", "name a PEM file");
    told("preset", &tls("certs"), "certs` is not a file", "name a PEM file");
    told("[admin]", "access_log.file = «\"certs\"\n[admin]", "`certs` is a folder", "name a file");
    told("[admin]", "access_log.file = «\"log/access\"\n[admin]", "there is no folder `", "make it");
    told("[admin]\n", "[admin]\nsocket = «\"run/admin.sock\"\n", "there is no folder `", "make it");
    told("[admin]", "access_log.file = «\"\"\n[admin]", "`` is not a path", "write a path");
}

#[test]
fn key_files_that_others_may_read() {
    let key_file = |file: &str| format!("affinity.cookie.key_file = {file}\npreset");
    told("preset", &key_file("«\"open/affinity.key\""), "has mode 0640: others may read", "`chmod 600 ");
    told("preset", &key_file("«\"certs\""), "certs` is not a file", "");
    fine("preset", &key_file("\"keys/affinity.key\""));
    fine("preset", &key_file("\"keys/not-made-yet.key\""));
}

#[test]
fn tls_towards_backends_without_a_name() {
    told("preset", "tls = «{ }\npreset", "`pool.tls` has no `server_name`", "server_name = ");
    told("preset", "tls = { server_name = «\"\" }\npreset", "`` is not a server name", "the name in the backends'");
}

#[test]
fn probes() {
    told("preset", "probe.path = «\"up\"\npreset", "`up` is not a path to probe", "such as");
    told("preset", "probe.status = «\"ok\"\npreset", "`ok` is not a range of statuses", "`\"200-399\"`");
    told(
        "preset",
        "probe = { type = \"tcp\", path = «\"/\" }\npreset",
        "`path` means nothing to a tcp probe",
        "type = \"http\"",
    );
    told(
        "preset",
        "probe = { interval = \"1s\", fast_interval = «\"2s\" }\npreset",
        "is longer than `interval`",
        "`\"1s\"`",
    );
}

#[test]
fn hosts_and_paths() {
    told("\"app.example.org\"", "«\"app.example.org:443\"", "a route is for every port", "write a name");
    told("\"app.example.org\"", "«\"https://app.example.org\"", "it is a URL", "write a name");
    told("path = \"/\"", "path = «\"app\"", "`app` is no path: it does not begin with `/`", "such as `\"/\"`");
    fine("\"app.example.org\"", "\"*.Example.ORG\"");
}

#[test]
fn no_listener_and_no_route() {
    let report = read_text("role = \"proxy\"", std::path::Path::new("/")).expect_err("nothing to listen on");
    assert_eq!(report.problems[0].message, "the top level has no `listener`");
    let text = "role = \"proxy\"\nlistener = [{ name = \"a\", address = \"[::]:80\" }]";
    let report = read_text(text, std::path::Path::new("/")).expect_err("nothing to answer");
    assert!(report.problems[0].message.starts_with("there is no route"), "{report}");
}

#[test]
fn one_cookie_for_two_pools_on_one_host() {
    let shared = |mark: &str, pool: &str| format!("affinity.cookie.name = {mark}\"bowline_app\"\n{pool}");
    let both = |mark: &str, host: &str| {
        replaced("name = \"app\"\n", "name = \"app\"\naffinity.cookie.enabled = true\n")
            .replace("preset", &shared(mark, "preset"))
            .replace("host = \"shiny.example.org\"", host)
    };
    // On two hosts they do not meet.
    let dir = site();
    assert!(read_text(both("", "host = \"shiny.example.org\""), dir.path()).is_ok());
    // On the second host a route for `/` comes first.
    assert!(read_text(both("", ""), dir.path()).is_ok());
    let text = both("", "host = \"app.example.org\"").replace("path = \"/\"", "path = \"/shiny\"");
    let report = read_text(text, dir.path()).expect_err("one cookie");
    let problem = &report.problems[0];
    assert_eq!((problem.line, problem.column), (Some(16), Some(24)), "{report}");
    assert_eq!(problem.message, "the affinity cookie `bowline_app` is also that of pool `app` on the same host");
}

#[test]
fn text_that_is_no_utf8_or_too_much() {
    let report =
        read_text(b"role = \"proxy\"\nx = \"\xff\"\n".to_vec(), std::path::Path::new("/")).expect_err("no UTF-8");
    assert_eq!(
        report.problems[0].to_string(),
        "proxy.toml:2:6: not UTF-8: byte 20 (from 0) begins no character\n    save the file as UTF-8"
    );
    let report = read_text(vec![b'\n'; 5 << 20], std::path::Path::new("/")).expect_err("too large");
    assert_eq!(report.problems[0].message, "the file is too large");
}

#[test]
fn a_flood_of_mistakes_is_cut_short() {
    let text: String = (0..3000).map(|n| format!("x{n} = 1\n")).collect();
    let report = read_text(text, std::path::Path::new("/")).expect_err("unknown keys");
    assert_eq!(report.problems.len(), 1001);
    // Two keys are missing too.
    assert_eq!(report.problems[1000].message, "2002 more problems are not listed");
}
