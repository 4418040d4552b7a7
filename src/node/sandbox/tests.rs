use std::sync::Mutex;

use super::*;

/// What a script gives, and what it says.
async fn ran(script: &str, bounds: Bounds) -> (Result<Vec<u8>, String>, String) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("in"), "what goes in").unwrap();
    let input = File::open(dir.path().join("in")).unwrap();
    let spool = Spool::open(dir.path()).unwrap();
    let run = Run {
        script,
        environment: vec![("colour".into(), "red".into())],
        readable: &[],
        folders: Vec::new(),
        uid: 65_534,
        door: None,
        bounds,
    };
    let said = Mutex::new(String::new());
    let done = run.run(input, &spool, |line| *said.lock().unwrap() += &format!("{line}\n")).await;
    (done.map(|out| std::fs::read(out.path()).unwrap()), said.into_inner().unwrap())
}

const BOUNDS: Bounds = Bounds { time: Duration::from_secs(20), memory: Memory::Addresses(1 << 30), disk: 8 << 20 };

#[tokio::test]
async fn what_goes_in_comes_out_and_what_is_said_is_heard() {
    let (out, said) = ran("cat; echo said >&2; printf \" $colour $HOME\"", BOUNDS).await;
    assert_eq!((out.unwrap().as_slice(), said.as_str()), (&b"what goes in red /work"[..], "said\n"));
    let (out, _) = ran("exit 3", BOUNDS).await;
    assert!(out.unwrap_err().contains("exit code 3"));
}

#[tokio::test]
async fn nothing_of_the_machine_is_there_but_its_programs() {
    let secret = tempfile::Builder::new().prefix("secret").tempdir().unwrap();
    std::fs::write(secret.path().join("key"), "hunter2").unwrap();
    let script = format!(
        "cat {0}/key /etc/shadow /etc/passwd /root/.bashrc 2>/dev/null | grep -a hunter2; \
         cat /proc/[0-9]*/environ | tr '\\0' '\\n' | grep -a '^CARGO'; (echo x >> /proc/self/fd/0) 2>/dev/null; \
         unshare -Ur true 2>/dev/null && echo 'namespaces of its own'; ls /home /root {0}; id -u; \
         ls /proc | grep -c '^[0-9]'; cat /proc/net/dev | grep -vc 'lo:\\|face\\|Inter'; \
         for at in / /usr /etc /dev /run; do touch $at/x && echo \"wrote $at\"; done; \
         touch /work/x /tmp/x && echo works; exit 0",
        secret.path().display()
    );
    let (out, _) = ran(&script, BOUNDS).await;
    let out = String::from_utf8(out.unwrap()).unwrap();
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines.len() == 4 && lines[2] == "0" && lines[3] == "works", "{out}");
    assert_ne!(lines[0], "0", "nobody is root there");
    assert!(lines[1].parse::<u32>().unwrap() < 10, "no processes but its own: {out}");
    if rustix::process::geteuid().is_root() {
        assert_eq!(lines[0], "65534");
    }
}

#[tokio::test]
async fn time_memory_and_disk_are_bounded_and_nothing_is_left() {
    let short = Bounds { time: Duration::from_secs(1), ..BOUNDS };
    let marker = format!("{}", 100_000 + std::process::id());
    let (out, _) = ran(&format!("setsid sleep {marker} & sleep {marker}"), short).await;
    assert!(out.unwrap_err().contains("longer than 1s"));
    let left = || {
        let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        processes.filter_map(|of| std::fs::read(of.path().join("cmdline")).ok()).any(|line| {
            let line = String::from_utf8_lossy(&line).into_owned();
            line.starts_with("sleep\0") && line.contains(&marker)
        })
    };
    for _ in 0..200 {
        if !left() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!left(), "what it started ends with it");

    let (out, said) = ran("head -c 9000000 /dev/zero > /work/x && exit 0; exit 7", BOUNDS).await;
    assert!(out.unwrap_err().contains("exit code"), "the disk is full, or the file too large: {said}");
    let (out, _) = ran("for n in 1 2 3 4 5; do head -c 2000000 /dev/zero > /work/$n || exit 7; done", BOUNDS).await;
    assert!(out.unwrap_err().contains("exit code 7"), "many files are bounded as one");
    let (out, _) = ran("head -c 9000000 /dev/zero", BOUNDS).await;
    assert!(out.unwrap_err().contains("more than"), "what comes out is bounded");
    let (out, _) = ran("head -c 2000000000 /dev/zero | tail -n 1 | wc -c; exit 0", BOUNDS).await;
    assert_ne!(String::from_utf8(out.unwrap()).unwrap().trim(), "2000000000", "memory is bounded");
}
