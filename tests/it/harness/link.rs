//! A way between a client and a server that can be broken.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

/// Passes connections on; ends with whoever holds it.
pub struct Link {
    pub address: SocketAddr,
    is_broken: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
    breaks: broadcast::Sender<()>,
    task: JoinHandle<()>,
}

impl Link {
    pub async fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (is_broken, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let breaks = broadcast::Sender::new(1);
        let (broken, count, told, target) =
            (Arc::clone(&is_broken), Arc::clone(&refused), breaks.clone(), target.to_owned());
        let task = tokio::spawn(async move {
            while let Ok((mut here, _)) = listener.accept().await {
                if broken.load(Ordering::SeqCst) {
                    count.fetch_add(1, Ordering::SeqCst);
                    reset(&here);
                    continue;
                }
                let (mut told, target) = (told.subscribe(), target.clone());
                tokio::spawn(async move {
                    let Ok(mut there) = TcpStream::connect(target).await else { return reset(&here) };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut here, &mut there) => {}
                        _ = told.recv() => {}
                    }
                    reset(&here);
                    reset(&there);
                });
            }
        });
        Self { address, is_broken, refused, breaks, task }
    }

    /// Resets all connections, and new ones until it is mended.
    pub fn cut(&self) {
        self.is_broken.store(true, Ordering::SeqCst);
        let _ = self.breaks.send(());
    }

    pub fn mend(&self) {
        self.is_broken.store(false, Ordering::SeqCst);
    }

    /// Connections that were tried in vain.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// It ends without a farewell.
fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
}
