use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn line() -> Line<'static> {
    Line {
        time: Timestamp::from_unix(Duration::from_millis(1_780_000_000_042)),
        listener: "https",
        client: Some("192.0.2.7:51234".parse().unwrap()),
        method: "GET",
        path: b"/app/websocket/",
        host: Some(b"apps.example.org"),
        status: Some(101),
        route: Some("apps.example.org/"),
        pool: Some("shiny"),
        backend: Some("a"),
        pick: Some("sticky"),
        attempts: 1,
        upgraded: true,
        bytes_received: 10,
        bytes_sent: 2_000_000_000_000,
        duration: Duration::from_micros(1_234_567),
        upstream_connect: Some(Duration::from_micros(310)),
        request_id: "0af7651916cd43dd8448eb211c80319c",
        error: None,
    }
}

fn encoded(line: &Line<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    line.encode(&mut out);
    out
}

#[test]
fn a_whole_line_reads_as_written_here() {
    let text = String::from_utf8(encoded(&line())).unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"time":"2026-05-28T20:26:40.042Z","listener":"https","client.address":"192.0.2.7","client.port":51234,"#,
            r#""http.request.method":"GET","url.path":"/app/websocket/","server.address":"apps.example.org","#,
            r#""http.response.status_code":101,"route":"apps.example.org/","pool":"shiny","backend":"a","pick":"sticky","#,
            r#""attempts":1,"upgraded":true,"bytes_received":10,"bytes_sent":2000000000000,"duration_ms":1234.567,"#,
            r#""upstream_connect_ms":0.310,"request_id":"0af7651916cd43dd8448eb211c80319c"}"#,
            "\n"
        )
    );
}

#[test]
fn what_does_not_apply_is_left_out_and_an_error_names_its_side() {
    let line = Line {
        client: None,
        host: None,
        status: None,
        route: None,
        pool: None,
        backend: None,
        pick: None,
        attempts: 0,
        upgraded: false,
        upstream_connect: None,
        error: Some(LineError { kind: "head_timeout", side: "downstream" }),
        ..line()
    };
    let value: Value = serde_json::from_slice(&encoded(&line)).unwrap();
    let keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    for absent in ["client.address", "server.address", "http.response.status_code", "route", "pool", "backend", "pick"]
    {
        assert!(!keys.contains(&absent), "{absent}");
    }
    assert_eq!(value["error.type"], "head_timeout");
    assert_eq!(value["error.side"], "downstream");
    assert_eq!(value["upgraded"], false);
}

#[test]
fn what_needs_no_care_is_known_wherever_it_stands() {
    for length in 0..20 {
        for at in 0..length {
            for byte in 0..=u8::MAX {
                let mut text = vec![b'~'; length];
                text[at] = byte;
                let is_odd = !(b' '..=b'~').contains(&byte) || byte == b'"' || byte == b'\\';
                assert_eq!(is_plain(&text), !is_odd, "{text:?}");
            }
        }
    }
}

#[test]
fn query_strings_are_never_logged() {
    let line = Line { path: b"/login?token=secret?more", ..line() };
    let text = String::from_utf8(encoded(&line)).unwrap();
    assert!(text.contains(r#""url.path":"/login","#) && !text.contains("secret"), "{text}");
}

#[test]
fn a_line_cannot_be_as_long_as_a_client_likes() {
    let path = [b'\x01'; 60_000];
    let line = Line { path: &path, host: Some(&path), ..line() };
    let out = encoded(&line);
    assert!(out.len() < 2 * 6 * TEXT_BYTES_MAX + 1_000, "{} bytes", out.len());
    let value: Value = serde_json::from_slice(&out).unwrap();
    assert!(value["url.path"].as_str().unwrap().ends_with('…'));
}

proptest! {
    #[test]
    fn any_bytes_make_one_line_of_json_that_reads_back(
        path in proptest::collection::vec(any::<u8>(), 0..200),
        host in proptest::collection::vec(any::<u8>(), 0..60),
        text in ".{0,40}",
        micros in any::<u32>(),
    ) {
        let duration = Duration::from_micros(micros.into());
        let line = Line { path: &path, host: Some(&host), method: &text, request_id: &text, duration, ..line() };
        let out = encoded(&line);
        prop_assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 1);
        prop_assert!(out.iter().all(|b| *b >= 0x20 || *b == b'\n'), "no raw control characters");
        let value: Value = serde_json::from_slice(&out).unwrap();
        let path = path.split(|b| *b == b'?').next().unwrap();
        prop_assert_eq!(&value["url.path"], &json!(String::from_utf8_lossy(path)));
        prop_assert_eq!(&value["server.address"], &json!(String::from_utf8_lossy(&host)));
        prop_assert_eq!(&value["http.request.method"], &json!(text));
        let milliseconds = value["duration_ms"].as_f64().unwrap();
        prop_assert!((milliseconds - f64::from(micros) / 1e3).abs() < 1e-3);
    }
}

#[test]
fn lines_reach_the_file_and_stop_when_the_log_is_switched_off() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("access.log");
    let settings = Settings { enabled: true, file: Some(file.clone()) };
    let log = AccessLog::start(&settings).unwrap();
    log.write(&line());
    assert!(log.flush(LIMIT));
    log.reconfigure(&Settings { enabled: false, ..settings.clone() }).unwrap();
    log.write(&line());
    assert!(log.flush(LIMIT));
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 1);
    log.reconfigure(&settings).unwrap();
    log.write(&line());
    assert!(log.flush(LIMIT));
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 2);
    assert_eq!(log.dropped(), 0);
}

#[test]
fn a_file_that_cannot_be_opened_leaves_the_log_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("access.log");
    let log = AccessLog::start(&Settings { enabled: true, file: Some(file.clone()) }).unwrap();
    let absent = dir.path().join("no such folder/access.log");
    let error = log.reconfigure(&Settings { enabled: true, file: Some(absent) }).unwrap_err();
    assert!(error.to_string().contains("no such folder/access.log"), "{error}");
    log.write(&line());
    assert!(log.flush(LIMIT));
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 1);
}

const LIMIT: Duration = Duration::from_secs(20);
