//! What the proxy answers by itself over HTTP/1.x. The connection ends behind it: what the client still sends belongs to
//! a request that nobody reads.

use std::io;
use std::time::Duration;

use http::StatusCode;
use http::header::LOCATION;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::{Downstream, linger};
use crate::proxy::error::Cause;
use crate::proxy::request::{Context, End};

/// How long a client may take to take it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends the client elsewhere.
pub async fn redirect(mut context: Box<Context>, mut down: Downstream, url: &str) {
    let answer = format!(
        "HTTP/1.1 308 Permanent Redirect\r\n{LOCATION}: {url}\r\ncontent-length: 0\r\nx-request-id: {}\r\nconnection: close\r\n\r\n",
        context.request_id()
    );
    let written = write(&mut down, answer.as_bytes()).await;
    context.finish(End { status: Some(308), bytes_in: 0, bytes_out: 0, cause: None, upgraded: false });
    if written.is_ok() {
        linger(down).await;
    }
}

/// Tells the client why there is no answer. `to_head`: it asked by HEAD; `bytes_in`: what came of its body.
pub async fn fail(mut context: Box<Context>, mut down: Downstream, cause: Cause, to_head: bool, bytes_in: u64) {
    let page = context.page(cause);
    let status = StatusCode::from_u16(cause.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = if to_head { "" } else { &page.body };
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {}\r\ncontent-length: {}\r\ncache-control: no-store\r\nx-request-id: {}\r\n{}connection: close\r\n\r\n{body}",
        page.content_type,
        page.body.len(),
        context.request_id(),
        if cause.status() == 503 { "retry-after: 1\r\n" } else { "" },
    );
    let written = write(&mut down, answer.as_bytes()).await;
    let bytes_out = body.len() as u64;
    context.finish(End { status: Some(cause.status()), bytes_in, bytes_out, cause: Some(cause), upgraded: false });
    if written.is_ok() {
        linger(down).await;
    }
}

async fn write(down: &mut Downstream, bytes: &[u8]) -> io::Result<()> {
    let all = async {
        down.stream.write_all(bytes).await?;
        down.stream.flush().await
    };
    timeout(PATIENCE, all).await.map_err(|_| io::ErrorKind::TimedOut)?
}
