//! Bodies of requests. A client that sends nothing of an upload for long has left.
//!
//! What one still sends of an upload that has failed is taken and thrown away, because most read no answer before they have
//! sent all, and show a broken connection in place of our words if we hang up. So is, of any request, the little that nobody
//! reads.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use http::HeaderValue;
use http::header::{CONNECTION, EXPECT};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

/// For the next piece of an upload.
const PATIENCE: Duration = Duration::from_secs(60);
/// For the next piece of what is thrown away.
const SILENCE: Duration = Duration::from_secs(10);

/// Bytes of it.
const BYTES_MAX: u64 = 4 << 30;

/// For all that is left of a body nobody reads.
const REST_TIME: Duration = Duration::from_secs(3);
/// Bytes of it.
const REST_BYTES_MAX: u64 = 256 << 10;

/// Answers a request, and takes what is left of a body that nobody reads.
///
/// It is taken if it is little and comes at once: many clients send it a moment after the head. Else the answer says that the
/// connection ends (RFC 9112 §9.6), because hyper ends it then without a word, and with it the request that the client sends
/// next.
///
/// # Errors
/// As whoever answers.
pub async fn answered<A, E>(request: http::Request<Incoming>, answer: impl FnOnce(Request) -> A) -> Result<Response, E>
where
    A: Future<Output = Result<Response, E>>,
{
    if request.body().is_end_stream() {
        return answer(request.map(Body::new)).await;
    }
    let is_sent = !request.headers().contains_key(EXPECT);
    let (give_back, mut back) = oneshot::channel();
    let lend = |body| Body::new(Lent::new(Body::new(body), is_sent, None, give_back));
    let mut response = answer(request.map(lend)).await?;
    if let Ok((body, is_sent)) = back.try_recv() {
        let is_taken = is_sent && tokio::time::timeout(REST_TIME, discard(body, REST_BYTES_MAX)).await.unwrap_or(false);
        if !is_taken {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
    Ok(response)
}

/// Hears a client out before a failure is answered.
pub async fn hear_out(request: Request, next: Next) -> Response {
    let is_sent = !request.headers().contains_key(EXPECT);
    let (give_back, mut back) = oneshot::channel();
    let patience = Box::pin(tokio::time::sleep(PATIENCE));
    let lend = |body| Body::new(Lent::new(body, is_sent, Some(patience), give_back));
    let response = next.run(request.map(lend)).await;
    if let (true, Ok((body, true))) = (response.status().as_u16() >= 400, back.try_recv()) {
        discard(body, BYTES_MAX).await;
    }
    response
}

/// Takes what comes, up to so many bytes; whether that was all.
async fn discard(body: Body, bytes_max: u64) -> bool {
    let mut pieces = body.into_data_stream();
    let mut left = bytes_max;
    loop {
        match tokio::time::timeout(SILENCE, pieces.next()).await {
            Ok(Some(Ok(piece))) => left = left.saturating_sub(piece.len() as u64),
            Ok(None) => return true,
            Ok(Some(Err(_))) | Err(_) => return false,
        }
        if left == 0 {
            return false;
        }
    }
}

/// A body that comes back when its reader has had enough of it, and whether the client sends it.
struct Lent {
    body: Body,
    /// Whether we want it or not. A client that asks first sends nothing unasked.
    is_sent: bool,
    is_over: bool,
    /// Over when nothing came for too long.
    patience: Option<Pin<Box<Sleep>>>,
    give_back: Option<oneshot::Sender<(Body, bool)>>,
}

impl Lent {
    fn new(
        body: Body,
        is_sent: bool,
        patience: Option<Pin<Box<Sleep>>>,
        give_back: oneshot::Sender<(Body, bool)>,
    ) -> Self {
        Self { body, is_sent, is_over: false, patience, give_back: Some(give_back) }
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.is_sent = true;
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.is_over |= matches!(polled, Poll::Ready(None | Some(Err(_))));
        let Some(patience) = &mut self.patience else { return polled };
        if polled.is_ready() {
            patience.as_mut().reset(Instant::now() + PATIENCE);
        } else if patience.as_mut().poll(cx).is_ready() {
            let late = io::Error::new(io::ErrorKind::TimedOut, "nothing came for too long");
            return Poll::Ready(Some(Err(axum::Error::new(late))));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let is_over = self.is_over || self.body.is_end_stream();
        if let Some(give_back) = self.give_back.take().filter(|_| !is_over) {
            let _ = give_back.send((std::mem::take(&mut self.body), self.is_sent));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_nothing_has_left() {
        let (first, never) = (Ok::<_, io::Error>(Bytes::from_static(b"x")), futures_util::stream::pending());
        let slow = futures_util::stream::once(async {
            tokio::time::sleep(PATIENCE - Duration::from_secs(1)).await;
            Ok(Bytes::from_static(b"y"))
        });
        let body = Body::from_stream(futures_util::stream::iter([first]).chain(slow).chain(never));
        let patience = Box::pin(tokio::time::sleep(PATIENCE));
        let mut pieces = Body::new(Lent::new(body, true, Some(patience), oneshot::channel().0)).into_data_stream();
        assert_eq!(pieces.next().await.unwrap().unwrap(), "x");
        assert_eq!(pieces.next().await.unwrap().unwrap(), "y", "slow, but not silent");
        assert!(pieces.next().await.unwrap().is_err());
    }
}
