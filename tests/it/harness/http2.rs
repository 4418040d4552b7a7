//! An HTTP/2 client, over TLS with ALPN.

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request};

use super::{Client, ClientTls, Fields, Response, patiently};

/// One connection; requests on it may run side by side (clone it).
#[derive(Clone)]
pub struct H2(SendRequest<Bytes>);

impl H2 {
    pub async fn connect(address: &str, tls: &ClientTls) -> Self {
        Self::connect_as(&h2::client::Builder::new(), address, tls).await
    }

    /// One that lets nobody send it a byte of a body.
    pub async fn without_window(address: &str, tls: &ClientTls) -> Self {
        Self::connect_as(h2::client::Builder::new().initial_window_size(0), address, tls).await
    }

    async fn connect_as(builder: &h2::client::Builder, address: &str, tls: &ClientTls) -> Self {
        let client = Client::tls(address, &tls.clone().alpn(&["h2"])).await;
        assert_eq!(client.agreed.as_ref().unwrap().alpn.as_deref(), Some("h2"));
        let (send, connection) = patiently("HTTP/2", builder.handshake(client.into_io())).await.unwrap();
        tokio::spawn(async {
            // How the connection ends shows in the requests on it.
            let _ = connection.await;
        });
        Self(send)
    }

    /// Begins a request and says nothing of its body; how the stream ends.
    pub async fn stall(&self, head: Request<()>) -> Result<u16, h2::Error> {
        let mut send = patiently("a place for a stream", self.0.clone().ready()).await?;
        let (answer, _unfinished) = send.send_request(head, false)?;
        patiently("the end of the stream", answer).await.map(|a| a.status().as_u16())
    }

    /// Begins a request and takes it back after that.
    pub async fn abandon(&self, head: Request<()>, after: impl AsyncFnOnce()) {
        let mut send = patiently("a place for a stream", self.0.clone().ready()).await.unwrap();
        let answer = send.send_request(head, true).unwrap();
        after().await;
        drop(answer);
    }

    /// Whether the connection is over; waits for that as long as for anything.
    pub async fn ends(&self) -> bool {
        patiently("the end of HTTP/2", async {
            while self.0.clone().ready().await.is_ok() {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        })
        .await;
        true
    }

    /// # Errors
    /// What h2 says, for example which reset came.
    pub async fn request(&self, request: Request<Vec<u8>>) -> Result<Response, h2::Error> {
        self.request_with_trailers(request, None).await
    }

    /// # Errors
    /// See [`Self::request`].
    pub async fn request_with_trailers(
        &self,
        request: Request<Vec<u8>>,
        trailers: Option<HeaderMap>,
    ) -> Result<Response, h2::Error> {
        let (head, body) = request.into_parts();
        let mut send = patiently("a place for a stream", self.0.clone().ready()).await?;
        let ends = body.is_empty() && trailers.is_none();
        let (answer, mut stream) = send.send_request(Request::from_parts(head, ()), ends)?;
        if !ends {
            stream.send_data(body.into(), trailers.is_none())?;
            if let Some(trailers) = trailers {
                stream.send_trailers(trailers)?;
            }
        }
        let (head, mut incoming) = patiently("an answer", answer).await?.into_parts();
        let mut response =
            Response { version: "HTTP/2".to_owned(), status: head.status.as_u16(), ..Response::default() };
        response.fields = fields(&head.headers);
        while let Some(part) = patiently("a body", incoming.data()).await {
            let part = part?;
            incoming.flow_control().release_capacity(part.len())?;
            response.body.extend_from_slice(&part);
        }
        if let Some(trailers) = patiently("trailers", incoming.trailers()).await? {
            response.trailers = fields(&trailers);
        }
        Ok(response)
    }
}

fn fields(map: &HeaderMap) -> Fields {
    Fields(map.iter().map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned())).collect())
}
