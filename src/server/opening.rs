//! How a connection begins: with a TLS handshake where that is spoken, and then with the bytes
//! that tell HTTP/2 from HTTP/1.1.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::{Tls, connection::HEAD_TIMEOUT, listener::Stream};
use crate::sendfile::{Outlet, Socket};

/// What an HTTP/2 client sends first (RFC 9113, section 3.4), whether it knows that we speak
/// HTTP/2 or was told so by ALPN.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Room for what comes with the first bytes: a whole request, or the settings of HTTP/2.
const FIRST_READ: usize = 1024;

/// The versions of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// A connection whose client has begun to speak HTTP. The state of TLS is a kilobyte, which one in
/// the clear does without.
pub(super) type Opened = ReadAhead<Either<Socket, Box<TlsStream<TcpStream>>>>;

/// A stream, and what has been read of it already.
pub(super) struct ReadAhead<S> {
    first: Bytes,
    stream: S,
}

/// Waits until the client shows which HTTP it speaks.
///
/// # Errors
/// When the handshake fails, or the client takes too long or hangs up.
pub(super) async fn open(stream: Stream, tls: Option<&Tls>) -> io::Result<(Opened, Protocol)> {
    let stream = match (stream, tls) {
        // Boxed for the same reason.
        (Either::Left(stream), Some(tls)) => Either::Right(Box::pin(tls.accept(stream)).await?),
        (stream, _) => Either::Left(Socket::new(stream)),
    };
    timeout(HEAD_TIMEOUT, recognise(stream)).await?
}

async fn recognise<S: AsyncRead + Unpin>(mut stream: S) -> io::Result<(ReadAhead<S>, Protocol)> {
    let mut first = BytesMut::with_capacity(FIRST_READ);
    let protocol = loop {
        let received = stream.read_buf(&mut first).await?;
        if first.starts_with(PREFACE) {
            break Protocol::Http2;
        }
        // At its end HTTP/1.1 will find the head cut off.
        if received == 0 || !PREFACE.starts_with(&first) {
            break Protocol::Http1;
        }
    };
    Ok((ReadAhead { first: first.freeze(), stream }, protocol))
}

impl Opened {
    /// Where pieces of files can be passed; `None`: they would have to be encrypted.
    pub(super) fn outlet(&self) -> Option<Outlet> {
        match &self.stream {
            Either::Left(socket) => Some(socket.outlet()),
            Either::Right(_) => None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// What is recognised of these bytes when so many arrive at once, and what is read afterwards.
    async fn recognised(bytes: &'static [u8], at_once: usize) -> (Protocol, Vec<u8>) {
        let (mut client, server) = tokio::io::duplex(at_once);
        tokio::spawn(async move { client.write_all(bytes).await.unwrap() });
        let (mut stream, protocol) = recognise(server).await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        (protocol, all)
    }

    #[tokio::test]
    async fn the_first_bytes_tell_the_protocol_and_are_not_lost() {
        let table: [(&[u8], Protocol); 6] = [
            (b"GET / HTTP/1.1\r\n\r\n", Protocol::Http1),
            (b"PATCH / HTTP/1.1\r\n\r\n", Protocol::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\nGET", Protocol::Http1),
            (b"PRI", Protocol::Http1),
            (b"", Protocol::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", Protocol::Http2),
        ];
        for (bytes, expected) in table {
            for at_once in [1, 7, 4096] {
                let (protocol, all) = recognised(bytes, at_once).await;
                assert_eq!(protocol, expected, "{bytes:?} by {at_once}");
                assert_eq!(all, bytes, "{bytes:?} by {at_once}");
            }
        }
    }
}
