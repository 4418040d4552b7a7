//! An S3 server of a test's own: moto, which keeps what it is given in memory. Good for what is asked and answered, not for
//! signatures.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal};

use super::{Client, eventually, tool};

/// Killed when dropped.
pub struct S3 {
    child: Child,
    address: String,
}

impl S3 {
    /// With one empty bucket, `bowline`.
    pub async fn start() -> Self {
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "--"]).arg(tool("moto_server"));
            command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let mut s3 = Self { child, address: format!("127.0.0.1:{port}") };
            let is_up = eventually("the S3 server", async || {
                if s3.child.try_wait().unwrap().is_some() {
                    // Somebody else took the port in between.
                    return Some(false);
                }
                tokio::net::TcpStream::connect(&s3.address).await.ok().map(|_| true)
            })
            .await;
            if is_up {
                let made = Client::tcp(&s3.address).await.request("PUT", "/bowline", &[], b"").await;
                assert_eq!(made.status, 200, "{made:?}");
                return s3;
            }
        }
        panic!("no port for the S3 server");
    }

    /// As a node's configuration names it; `more` is further keys.
    pub fn config(&self, more: &str) -> String {
        format!(
            "[storage.default]\ntype = \"s3\"\nbucket = \"bowline\"\nprefix = \"a/b\"\nendpoint = \"http://{}\"\n\
             access_key_id = \"test\"\nsecret_access_key_file = \"s3.secret\"\n{more}\n",
            self.address
        )
    }

    /// Every object's name, and whether its bytes hold these.
    pub async fn holds(&self, bytes: &[u8]) -> Vec<(String, bool)> {
        let list = Client::tcp(&self.address).await.request("GET", "/bowline?list-type=2", &[], b"").await.text();
        let mut found = Vec::new();
        for name in list.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()) {
            let object = Client::tcp(&self.address).await.request("GET", &format!("/bowline/{name}"), &[], b"").await;
            found.push((name.to_owned(), object.body.windows(bytes.len()).any(|window| window == bytes)));
        }
        found
    }

    /// Stops answering without hanging up.
    pub fn hang(&self) {
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::STOP).unwrap();
    }

    /// Answers again, what it was asked meanwhile too.
    pub fn go_on(&self) {
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::CONT).unwrap();
    }

    /// Ends it, with all it has.
    pub fn down(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.down();
    }
}
