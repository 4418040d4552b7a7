//! What commands show while they work: a line on a terminal, and nothing where nobody looks.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::harness::{Folder, Origin, bowline, eventually, tool, within};

/// A server that takes what it is given, and answers once for each permit.
fn slow(permits: &Arc<Semaphore>) -> Origin {
    let permits = Arc::clone(permits);
    Origin::scripted("slow", async move |exchange| {
        exchange.read_body().await?;
        permits.acquire().await.unwrap().forget();
        exchange.reply("200 OK", &[], b"published\n").await
    })
}

/// A command under a terminal of 100 columns, which writes everything into a file.
struct Watched {
    child: Child,
    folder: Folder,
}

impl Watched {
    fn start(arguments: &[&str]) -> Self {
        let folder = Folder::new();
        let quoted: Vec<String> = arguments.iter().map(|argument| format!("'{argument}'")).collect();
        let inner = format!("stty cols 100 rows 30; exec '{}' {}", env!("CARGO_BIN_EXE_bowline"), quoted.join(" "));
        let child = Command::new(tool("script"))
            .args(["-q", "-e", "-c", &inner, "/dev/null"])
            .env("TERM", "xterm")
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::null())
            .stdout(File::create(folder.path("shown")).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    fn shown(&self) -> String {
        self.folder.read("shown")
    }

    async fn until(&self, words: &str) {
        eventually(&format!("{words:?} on the terminal"), async || self.shown().contains(words).then_some(())).await;
    }

    /// All that was shown, and how it ended.
    async fn end(&mut self) -> (Option<i32>, String) {
        let status = eventually("the command's end", async || self.child.try_wait().unwrap()).await;
        (status.code(), self.shown())
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_upload_shows_how_far_it_is_on_a_terminal_and_nowhere_else() {
    within(60, async {
        let permits = Arc::new(Semaphore::new(0));
        let origin = slow(&permits);
        let url = format!("http://{}", origin.address);
        let folder = Folder::new();
        let key = folder.write("key", "bwl_x").to_str().unwrap().to_owned();
        let file = folder.write("alpha-1.0.tar.gz", vec![0; 3 << 20]).to_str().unwrap().to_owned();
        let add = ["add", "pypi", &file, "--server", &url, "--key-file", &key];

        let mut watched = Watched::start(&add);
        watched.until("3.00 MiB/3.00 MiB").await;
        assert!(watched.shown().contains("1/1 alpha-1.0.tar.gz"), "{}", watched.shown());
        permits.add_permits(1);
        let (code, shown) = watched.end().await;
        assert!(code == Some(0) && shown.contains("\x1b[2K1/1 alpha-1.0.tar.gz: published\r\n"), "{shown:?}");
        assert!(shown.ends_with("\x1b[2K"), "the line is taken away: {shown:?}");

        // Longer than it takes until something is shown.
        let answers = tokio::spawn({
            let permits = Arc::clone(&permits);
            let count = origin.count("/packages/pypi/upload/alpha-1.0.tar.gz");
            async move {
                for number in 1..=2 {
                    origin.until("an upload", |origin| origin.seen().len() >= count + number).await;
                    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
                    permits.add_permits(1);
                }
                origin
            }
        });
        let done = bowline(&add).await.ok();
        assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", "1/1 alpha-1.0.tar.gz: published\n"));
        let (code, shown) = Watched::start(&[&add[..], &["--json"]].concat()).end().await;
        assert_eq!(code, Some(0));
        assert_eq!(shown.trim_end(), r#"[{"file":"alpha-1.0.tar.gz","told":"published"}]"#);
        answers.await.unwrap();
    });
}

#[test]
fn who_waits_for_a_job_sees_what_it_does_beside_what_it_says() {
    within(60, async {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = crate::harness::Node::start("a", "").await;
        let url = format!("http://{}/tidy.git", silent.local_addr().unwrap());
        node.command(&["source", "create", "tidy", "--git", &url]).await;
        let mut watched = Watched::start(&["sync", "tidy", "--follow", "-c", &node.config()]);
        watched.until("sync tidy: running").await;
        drop(silent);
        let (code, shown) = watched.end().await;
        let lines: Vec<&str> = shown.split(['\r', '\n']).filter(|line| !line.is_empty()).collect();
        assert!(code == Some(1) && lines.last().unwrap().contains("failed: git: "), "{shown:?}");
    });
}
