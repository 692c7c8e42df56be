//! An HTTP/2 client that sees frames: resets, GOAWAY, and whether a stream was ended or broken off.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::{Reason, RecvStream, client::SendRequest};
use http::{Request, Response};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinHandle,
};

use super::wait::within_limit;

/// More than any body of a test, so that the server need not wait.
const WINDOW: u32 = 16 * 1024 * 1024;

/// One connection, for any number of requests at once.
pub struct Http2 {
    requests: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

/// How a body ended.
#[derive(Debug)]
pub enum Stream {
    /// With END_STREAM.
    Ended(Bytes),
    /// With RST_STREAM, after so many bytes.
    Reset(usize, Option<Reason>),
}

impl Http2 {
    /// Connects without asking what the server speaks.
    pub async fn connect(server: SocketAddr) -> Http2 {
        Http2::over(TcpStream::connect(server).await.unwrap()).await
    }

    /// Speaks HTTP/2 over a stream.
    pub async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Http2 {
        Http2::with_window(WINDOW, stream).await
    }

    /// As [`Http2::over`]; the server has to wait once it has sent so much that nobody has read.
    pub async fn with_window(
        window: u32,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Http2 {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window).initial_connection_window_size(window);
        let shaking_hands = within_limit("an HTTP/2 handshake", builder.handshake(stream));
        let (requests, connection) = shaking_hands.await.unwrap();
        Http2 { requests, connection: tokio::spawn(connection) }
    }

    /// Sends a request for an absolute URI and returns the head of the answer.
    ///
    /// # Errors
    /// When the server resets the stream or ends the connection first.
    pub async fn request(
        &self,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response<RecvStream>, h2::Error> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let what = format!("the answer to {method}");
        within_limit(&what, async {
            let mut requests = self.requests.clone().ready().await?;
            requests.send_request(request, true)?.0.await
        })
        .await
    }

    /// Sends a GET for a path.
    pub async fn get(&self, path: &str) -> Response<RecvStream> {
        self.request("GET", &format!("http://mirror{path}"), &[]).await.unwrap()
    }

    /// Sends a GET for a path and expects this body.
    pub async fn expect(&self, path: &str, expected: &[u8]) {
        let response = self.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        match read(response.into_body()).await {
            Stream::Ended(bytes) => assert!(bytes == expected, "{path}: other bytes"),
            Stream::Reset(received, reason) => panic!("{path}: {reason:?} after {received} bytes"),
        }
    }

    /// Waits for the connection's end, and says how it ended.
    pub async fn ended(self) -> Result<(), h2::Error> {
        within_limit("the connection's end", self.connection).await.unwrap()
    }
}

/// Reads a body to its end, good or bad.
pub async fn read(mut body: RecvStream) -> Stream {
    let mut bytes = Vec::new();
    within_limit("a body", async {
        while let Some(data) = body.data().await {
            match data {
                Ok(data) => {
                    bytes.extend_from_slice(&data);
                    // Fails when the stream has been reset, which shows next.
                    let _ = body.flow_control().release_capacity(data.len());
                }
                Err(error) => return Stream::Reset(bytes.len(), error.reason()),
            }
        }
        Stream::Ended(bytes.into())
    })
    .await
}
