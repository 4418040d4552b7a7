//! A way between a client and a server that can be broken.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

/// Passes connections on; ends with whoever holds it.
pub struct Link {
    pub address: SocketAddr,
    target: Arc<Mutex<String>>,
    is_broken: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
    /// Bytes a second of each way of a connection; 0: as many as there are.
    rate: Arc<AtomicUsize>,
    breaks: broadcast::Sender<()>,
    task: JoinHandle<()>,
}

impl Link {
    pub async fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (is_broken, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let breaks = broadcast::Sender::new(1);
        let rate = Arc::new(AtomicUsize::new(0));
        let (broken, count, told, target) =
            (Arc::clone(&is_broken), Arc::clone(&refused), breaks.clone(), target.to_owned());
        let slow = Arc::clone(&rate);
        let target = Arc::new(Mutex::new(target));
        let leads = Arc::clone(&target);
        let task = tokio::spawn(async move {
            while let Ok((mut here, _)) = listener.accept().await {
                if broken.load(Ordering::SeqCst) {
                    count.fetch_add(1, Ordering::SeqCst);
                    reset(&here);
                    continue;
                }
                let target = leads.lock().unwrap().clone();
                let (mut told, slow) = (told.subscribe(), Arc::clone(&slow));
                tokio::spawn(async move {
                    let Ok(mut there) = TcpStream::connect(target).await else { return reset(&here) };
                    // What waits on the line waits where it can be seen.
                    for side in [&here, &there] {
                        let _ = socket2::SockRef::from(side).set_recv_buffer_size(16 << 10);
                    }
                    {
                        let (mut up, mut down) = (here.split(), there.split());
                        let both = async {
                            tokio::join!(pass(&mut up.0, &mut down.1, &slow), pass(&mut down.0, &mut up.1, &slow))
                        };
                        tokio::select! {
                            _ = both => {}
                            _ = told.recv() => {}
                        }
                    }
                    reset(&here);
                    reset(&there);
                });
            }
        });
        Self { address, target, is_broken, refused, rate, breaks, task }
    }

    /// New connections lead there: as an address does that another machine takes over.
    pub fn lead_to(&self, target: &str) {
        target.clone_into(&mut self.target.lock().unwrap());
    }

    /// So many bytes a second from now on, each way of each connection.
    pub fn slow(&self, bytes_per_second: usize) {
        self.rate.store(bytes_per_second, Ordering::SeqCst);
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

/// Passes bytes on, no faster than told.
async fn pass(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), rate: &AtomicUsize) {
    let mut buffer = vec![0; 4 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        let rate = rate.load(Ordering::SeqCst);
        if rate > 0 {
            tokio::time::sleep(Duration::from_secs_f64(count as f64 / rate as f64)).await;
        }
    }
    let _ = to.shutdown().await;
}

/// It ends without a farewell.
fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
