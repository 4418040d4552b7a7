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
        account: Account::numbered(65_534),
        door: None,
        outbound: None,
        bounds,
    };
    let said = Mutex::new(String::new());
    let done = run.run(input, &spool, |line| *said.lock().unwrap() += &format!("{line}\n")).await;
    (done.map(|out| std::fs::read(out.path()).unwrap()), said.into_inner().unwrap())
}

const BOUNDS: Bounds =
    Bounds { time: Duration::from_secs(20), memory: Memory::Addresses(1 << 30), cpu: None, disk: 8 << 20 };

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

/// What is on the command lines of this machine.
fn command_lines() -> String {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = processes.filter_map(|of| std::fs::read(of.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ") + "\n").collect()
}

#[tokio::test]
async fn variables_are_on_no_command_line_and_nothing_is_left_open_inside() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("in"), "").unwrap();
    let secret = format!("hunter-{:032x}", crate::runtime::dice::unique());
    let run = Run {
        script: "echo now >&2; sleep 0.3; echo \"$secret\"; ls /proc/self/fd | grep -c '^[4-9]$'; cat /etc/hosts | head -n 1; getent hosts localhost >/dev/null && echo found",
        environment: vec![("secret".into(), secret.clone())],
        readable: &[],
        folders: vec![Folder { from: dir.path().to_owned(), to: "/seen".into(), is_writable: false }],
        account: Account::numbered(65_534),
        door: None,
        outbound: None,
        bounds: BOUNDS,
    };
    let (input, spool) = (File::open(dir.path().join("in")).unwrap(), Spool::open(dir.path()).unwrap());
    let seen = Mutex::new(String::new());
    let done = run.run(input, &spool, |_| *seen.lock().unwrap() += &command_lines()).await.unwrap();
    let seen = seen.into_inner().unwrap();
    assert!(seen.contains("bwrap --args 8") && !seen.contains(&secret), "{seen}");
    let out = std::fs::read_to_string(done.path()).unwrap();
    // 3 is the folder `ls` reads.
    assert_eq!(out, format!("{secret}\n0\n127.0.0.1 localhost\nfound\n"));
}

/// Bounds hold for all processes together where there are control groups.
#[tokio::test]
async fn what_a_program_starts_counts_with_it() {
    if let Err(why) = cgroups() {
        eprintln!("left out: {why}");
        return;
    }
    // `tail` keeps what it is to give: many that have 40 MB each, which one may have. Beside them there are 256 MiB for files.
    let many = |count: u32| {
        let one = "head -c 40000000 /dev/zero | tail -c 40000000 | sleep 2 &";
        format!("n=0; while [ $n -lt {count} ]; do {one} n=$((n + 1)); done; wait; exit 5")
    };
    let bounds = Bounds { memory: Memory::Writable(60 << 20), disk: 1 << 20, ..BOUNDS };
    let (out, _) = ran(&many(2), bounds).await;
    assert!(out.unwrap_err().contains("exit code 5"));
    let (out, _) = ran(&many(12), bounds).await;
    assert!(out.unwrap_err().ends_with(MORE_MEMORY));

    let busy = "end=$(($(date +%s%N) / 1000000 + 1500)); while [ $(($(date +%s%N) / 1000000)) -lt $end ]; do :; done; \
                awk '{ print $14 + $15 + $16 + $17 }' /proc/$$/stat";
    let (out, _) = ran(busy, Bounds { cpu: Some(200), ..BOUNDS }).await;
    let ticks: u64 = String::from_utf8(out.unwrap()).unwrap().trim().parse().unwrap();
    assert!((1..=60).contains(&ticks), "a fifth of a processor for 1.5 s is 30 hundredths of a second, not {ticks}");
}

#[tokio::test]
async fn a_network_outward_is_there_where_it_is_wanted_and_is_not_its_own_to_change() {
    use std::os::unix::fs::PermissionsExt;
    let is_root = rustix::process::geteuid().is_root();
    let mode = std::fs::metadata("/dev/net/tun").map_or(0, |of| of.permissions().mode());
    if !is_root && mode & 0o006 != 0o006 {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("in"), "what goes in").unwrap();
    let outbound = Outbound::default();
    let run = Run {
        script: "cat; echo; grep -c tap0 /proc/net/dev; grep nameserver /etc/resolv.conf; ls /proc/self/fd | grep -c '^[4-9]$'; \
                 grep CapPrm /proc/self/status | tr -d '\\t'; ip route del prohibit 169.254.0.0/16 2>/dev/null || echo no; \
                 unshare -Urn true 2>/dev/null || echo no; id -u",
        environment: Vec::new(),
        readable: &[],
        folders: Vec::new(),
        account: Account::numbered(65_534),
        door: None,
        outbound: Some(&outbound),
        bounds: BOUNDS,
    };
    let (input, spool) = (File::open(dir.path().join("in")).unwrap(), Spool::open(dir.path()).unwrap());
    let said = Mutex::new(String::new());
    let done = run.run(input, &spool, |line| *said.lock().unwrap() += line).await;
    let out = done.map(|out| std::fs::read_to_string(out.path()).unwrap());
    let uid = if is_root { 65_534 } else { rustix::process::geteuid().as_raw() };
    let expected = format!("what goes in\n1\nnameserver 198.18.0.3\n0\nCapPrm:0000000000000000\nno\nno\n{uid}\n");
    assert_eq!(out.as_deref(), Ok(expected.as_str()), "{}", said.into_inner().unwrap());
}
