use clap::{Args as _, Command};

use super::fixture::{at, run};
use super::*;
use crate::cli::{disable, drain, enable, reload, sessions, status};

#[test]
fn every_command_reads_its_arguments() {
    let commands = [
        ("status", status::Args::augment_args(Command::new("status")), ""),
        ("sessions", sessions::Args::augment_args(Command::new("sessions")), ""),
        ("drain", drain::Args::augment_args(Command::new("drain")), "shiny/a --wait --deadline 8h"),
        ("enable", enable::Args::augment_args(Command::new("enable")), "shiny/a"),
        ("disable", disable::Args::augment_args(Command::new("disable")), "shiny/a"),
        ("reload", reload::Args::augment_args(Command::new("reload")), ""),
    ];
    for (name, command, own) in commands {
        command.clone().debug_assert();
        let reads = |line: &str| command.clone().try_get_matches_from(line.split_whitespace()).is_ok();
        for shared in ["", "--json", "--admin /run/x.sock", "--admin http://[::1]:9443 --json", "-c proxy.toml"] {
            assert!(reads(&format!("{name} {own} {shared}")), "{name} {own} {shared}");
        }
        for wrong in ["--admin https://x", "--admin /x -c y", "--deadline soon", "a/b c/d", "--wait=x"] {
            assert!(!reads(&format!("{name} {own} {wrong}")), "{name} {own} {wrong}");
        }
        assert_eq!(reads(name), own.is_empty(), "{name} without its own arguments");
    }
}

fn status_of(target: &Target) -> fixture::Ran {
    run(|_| target.proxy()?.status().map(drop))
}

#[test]
fn when_nobody_answers_it_says_who_was_asked_and_how_to_ask_another() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("absent.sock");
    let stale = dir.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (endpoint, why) in [
        (Endpoint::Unix(absent), "no such socket"),
        (Endpoint::Unix(stale), "nobody listens"),
        (Endpoint::Http(closed.to_string()), "nobody listens"),
    ] {
        let ran = status_of(&at(endpoint.clone(), false));
        assert_eq!(ran.code, 1);
        for part in [why, &endpoint.to_string(), "--admin", "-c FILE", "BOWLINE_ADMIN"] {
            assert!(ran.failure.contains(part), "{part}: {ran:?}");
        }
    }
}

#[test]
fn the_flag_comes_before_the_variable_and_the_packaged_socket_is_last() {
    let unix = |path: &str| Endpoint::Unix(path.into());
    let (flag, none) = (at(unix("/flag.sock"), false), Target::default());
    assert_eq!(flag.endpoint(Some("/variable.sock".into())).unwrap(), unix("/flag.sock"));
    assert_eq!(none.endpoint(Some("/variable.sock".into())).unwrap(), unix("/variable.sock"));
    assert_eq!(none.endpoint(Some(String::new())).unwrap(), unix(DEFAULT_SOCKET));
    assert_eq!(none.endpoint(None).unwrap(), unix(DEFAULT_SOCKET));
    let failure = none.endpoint(Some("https://proxy:9443".into())).unwrap_err();
    assert!(failure.message().unwrap().contains("BOWLINE_ADMIN is `https://proxy:9443`"), "{failure:?}");
}

#[test]
fn a_configuration_is_asked_for_its_socket_first() {
    let found = |address: Option<&str>, socket: Option<&str>| {
        let admin = Admin { address: address.map(|a| a.parse().unwrap()), socket: socket.map(Into::into) };
        configured(&admin, Path::new("proxy.toml")).map_err(|failure| exit_code(&Err(failure)))
    };
    assert_eq!(found(Some("127.0.0.1:9443"), Some("/run/a.sock")), Ok(Endpoint::Unix("/run/a.sock".into())));
    assert_eq!(found(Some("10.0.0.1:9443"), None), Ok(Endpoint::Http("10.0.0.1:9443".into())));
    assert_eq!(found(Some("0.0.0.0:9443"), None), Ok(Endpoint::Http("127.0.0.1:9443".into())));
    assert_eq!(found(Some("[::]:9443"), None), Ok(Endpoint::Http("[::1]:9443".into())));
    assert_eq!(found(Some("127.0.0.1:0"), None), Err(1));
    assert_eq!(found(None, None), Err(78));
}

#[test]
fn somebody_elses_port_is_recognised() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let other = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"220 mail.example.org ESMTP\r\n").unwrap();
        let mut sent = [0; 16];
        let _ = io::Read::read(&mut stream, &mut sent);
    });
    let ran = status_of(&at(Endpoint::Http(address.to_string()), false));
    other.join().unwrap();
    assert_eq!(ran.code, 1);
    assert!(ran.failure.contains("no proxy answers"), "{ran:?}");
}

#[test]
fn a_backend_is_named_by_pool_and_key() {
    let name: BackendName = "shiny/a".parse().unwrap();
    assert_eq!((name.pool.as_str(), name.key.as_str()), ("shiny", "a"));
    for text in ["", "shiny", "/a", "shiny/"] {
        assert!(text.parse::<BackendName>().is_err(), "{text}");
    }
}

#[test]
fn a_closed_pipe_is_no_failure() {
    assert_eq!(exit_code(&Err(io::Error::from(io::ErrorKind::BrokenPipe).into())), 0);
    assert_eq!(exit_code(&Err(io::Error::from(io::ErrorKind::StorageFull).into())), 1);
}

#[test]
fn spans_show_their_two_largest_units() {
    for (seconds, text) in [(0, "0s"), (59, "59s"), (61, "1m 1s"), (3_725, "1h 2m"), (90_000, "1d 1h")] {
        assert_eq!(span(Duration::from_secs(seconds)), text);
    }
}

#[test]
fn anything_survives_in_a_path() {
    assert_eq!(percent_encode("a-b_c.d~9"), "a-b_c.d~9");
    assert_eq!(percent_encode("ä/b c%"), "%C3%A4%2Fb%20c%25");
}
