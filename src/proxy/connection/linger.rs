//! The end of a connection.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Downstream;

/// How long, and for how many bytes, a closing connection listens to what the client still sends, so that our last
/// answer is not destroyed by a reset (RFC 9112 §9.6).
pub const LINGER: Duration = Duration::from_secs(2);
/// See [`LINGER`].
pub const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// Ends our side and listens a little, so that the client can read the answer it has not yet read.
pub async fn linger(mut down: Downstream) {
    let listen = async {
        if down.stream.shutdown().await.is_err() {
            return;
        }
        let (mut left, mut scratch) = (LINGER_BYTES, vec![0; 8192]);
        while let Ok(n @ 1..) = down.stream.read(&mut scratch).await {
            left = left.saturating_sub(n);
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, listen).await;
}
