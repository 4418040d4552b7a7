//! A server that takes mail (RFC 5321) and delivers none.

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};

/// Ends with the test's runtime.
pub struct Smtp {
    pub port: u16,
    letters: Mutex<mpsc::UnboundedReceiver<String>>,
}

impl Smtp {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (delivered, letters) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let delivered = delivered.clone();
                tokio::spawn(async move { converse(stream, &delivered).await });
            }
        });
        Self { port, letters: Mutex::new(letters) }
    }

    /// The next one, as it was sent.
    pub async fn letter(&self) -> String {
        self.letters.lock().await.recv().await.unwrap()
    }
}

async fn converse(stream: TcpStream, delivered: &mpsc::UnboundedSender<String>) -> Option<()> {
    let (from, mut to) = stream.into_split();
    let mut lines = BufReader::new(from).lines();
    to.write_all(b"220 sink\r\n").await.ok()?;
    while let Some(line) = lines.next_line().await.ok()? {
        let answer = match line.split(' ').next()? {
            "EHLO" => "250 sink",
            "DATA" => {
                to.write_all(b"354 go on\r\n").await.ok()?;
                let mut letter = String::new();
                while let Some(line) = lines.next_line().await.ok()?.filter(|line| line != ".") {
                    letter += &format!("{line}\n");
                }
                delivered.send(letter).ok()?;
                "250 taken"
            }
            "QUIT" => return to.write_all(b"221 bye\r\n").await.ok(),
            _ => "250 well",
        };
        to.write_all(format!("{answer}\r\n").as_bytes()).await.ok()?;
    }
    Some(())
}
