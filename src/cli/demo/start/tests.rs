//! With a shell in place of an interpreter, and Python's own web server in place of Shiny.

use std::net::TcpListener;

use super::shiny::Plan;
use super::*;

fn plan(folder: &Path, interpreter: &Path) -> Plan {
    Plan {
        app: App::Python,
        interpreter: interpreter.to_owned(),
        name: "python-a".to_owned(),
        folder: folder.to_owned(),
        log: folder.join("python-a.log"),
        tmp: folder.to_owned(),
        mark: "python-a-0123".to_owned(),
    }
}

/// A script that is called as Python would be: `-m shiny run … --port PORT app.py`.
fn interpreter(folder: &Path, script: &str) -> PathBuf {
    let path = folder.join("interpreter");
    let text = format!("#!/bin/sh\nfor word; do last=$port; port=$this; this=$word; done\n{script}\n");
    crate::cli::demo::write_script(&path, &text);
    path
}

/// Serves its mark.
const SERVE: &str = "echo \"<meta content=$BOWLINE_DEMO>\" >index.html
exec python3 -m http.server --bind 127.0.0.1 \"$port\"";

#[tokio::test]
async fn a_process_is_handed_over_once_it_serves() {
    let folder = tempfile::tempdir().unwrap();
    let interpreter = interpreter(folder.path(), SERVE);
    let node = plan(folder.path(), &interpreter).start(Launcher::default(), Arc::default()).await.unwrap();
    let listed = node.listed();
    assert_eq!(listed.url, format!("http://127.0.0.1:{}", node.port));
    assert!(ask::http(node.port, "/").await.unwrap().has("python-a-0123"));
    node.running.end(Duration::from_secs(10)).await;
    assert!(ask::http(node.port, "/").await.is_err());
}

#[tokio::test]
async fn one_that_ends_is_reported_with_its_last_words() {
    let folder = tempfile::tempdir().unwrap();
    let interpreter = interpreter(folder.path(), "echo 'ImportError: no luck' >&2; exit 3");
    let error = plan(folder.path(), &interpreter).start(Launcher::default(), Arc::default()).await.err().unwrap();
    let text = error.to_string();
    assert!(matches!(error, StartError::Ended { .. }), "{text}");
    for wanted in ["python-a", "exit status: 3", "ImportError: no luck"] {
        assert!(text.contains(wanted), "{wanted} is missing in {text}");
    }
}

#[tokio::test]
async fn one_that_loses_its_port_gets_the_next() {
    let folder = tempfile::tempdir().unwrap();
    // The first time, a stranger takes the port and answers on it; the second time nobody does.
    let script = format!(
        "if [ -e stranger ]; then {SERVE}; fi
        mkdir elsewhere; cd elsewhere; timeout 60 python3 -m http.server --bind 127.0.0.1 \"$port\" >/dev/null 2>&1 &
        echo $! >$OLDPWD/stranger
        until python3 -c \"import socket; socket.create_connection(('127.0.0.1', $port))\" 2>/dev/null; do :; done
        echo 'address already in use' >&2; exit 1"
    );
    let interpreter = interpreter(folder.path(), &script);
    let node = plan(folder.path(), &interpreter).start(Launcher::default(), Arc::default()).await.unwrap();
    let stranger = std::fs::read_to_string(folder.path().join("stranger")).unwrap();
    let stranger = rustix::process::Pid::from_raw(stranger.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(stranger, Signal::TERM).unwrap();
    assert!(ask::http(node.port, "/").await.unwrap().has("python-a-0123"));
}

#[tokio::test]
async fn a_stranger_who_answers_is_not_taken_for_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = stranger.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = stranger.accept() {
            let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\n\r\nwelcome");
        }
    });
    let plan = plan(folder.path(), Path::new("sleep"));
    let program = Program { command: vec!["sleep".into(), "0.3".into()], ..plan.program(port) };
    let running = start(&Launcher::default(), &program).unwrap();
    assert!(matches!(serves(running, &program, || plan.look(port)).await, Err(StartError::Ended { .. })));
}

#[test]
fn a_ports_file_of_another_process_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ports.json");
    assert!(!listens(&file, 7));
    std::fs::write(&file, r#"{"listeners":{"https":"127.0.0.1:8443"},"admin":"127.0.0.1:9443","pid":7}"#).unwrap();
    assert!(listens(&file, 7) && !listens(&file, 8));
}

#[test]
fn last_words_are_few_and_indented() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    assert_eq!(last_words(&log), "    (none)");
    std::fs::write(&log, (0..100).map(|n| format!("line {n}\n\n")).collect::<String>()).unwrap();
    let words = last_words(&log);
    assert_eq!(words.lines().count(), LAST_WORDS_LINES);
    assert!(words.starts_with("    line 80\n") && words.ends_with("line 99"), "{words}");
}
