//! Requests with a body to the admin API, over TCP and over `admin.sock`.

use std::{net::SocketAddr, path::Path};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
};

use super::wait::within_limit;

/// What came back.
#[derive(Debug)]
pub struct Answered {
    /// The status code.
    pub status: u16,
    /// Head and body as one text, the body perhaps in chunks.
    pub text: String,
}

/// Asks over TCP.
pub async fn over_tcp(server: SocketAddr, request: &[&str], body: &str) -> Answered {
    exchange(TcpStream::connect(server).await.unwrap(), request, body).await
}

/// Asks over a socket.
pub async fn over_socket(socket: &Path, request: &[&str], body: &str) -> Answered {
    try_over_socket(socket, request, body).await.unwrap()
}

/// As [`over_socket`]; `None` when nobody listens. The answer of a process that dies is cut.
pub async fn try_over_socket(socket: &Path, request: &[&str], body: &str) -> Option<Answered> {
    let stream = UnixStream::connect(socket).await.ok()?;
    Some(exchange(stream, request, body).await)
}

/// Sends the method with its path, and headers, each as one line.
async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &[&str],
    body: &str,
) -> Answered {
    let (first, headers) = request.split_first().unwrap();
    let mut text = format!("{first} HTTP/1.1\r\nhost: larder\r\nconnection: close\r\n");
    for header in headers {
        text += &format!("{header}\r\n");
    }
    text += &format!("content-length: {}\r\n\r\n{body}", body.len());
    // A refusal may come before all of a long body has gone.
    let _ = stream.write_all(text.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = within_limit("an answer", stream.read_to_end(&mut answer)).await;
    let text = String::from_utf8(answer).unwrap();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    Answered { status: status.unwrap_or_default(), text }
}
