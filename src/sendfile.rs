//! Pieces of files that go from the page cache to a socket without passing through this process:
//! sendfile(2) costs less than half of what reading and writing them costs.
//!
//! hyper takes bodies of bytes only, so what it is given for a piece is a *blank*: as many bytes of one
//! region that nobody reads or writes. [`Outlet::pass`] notes the piece and makes its blank; hyper hands the blank
//! uncopied to the [`Socket`], since that says it writes vectored; and the socket knows it by its address, and sends
//! the piece in its place. How far the blank has been cut off at its front is how far the piece has been sent.
//!
//! What a client must never get is the blank itself. So a socket is only offered blanks by who has its
//! outlet, which HTTP/1 in the clear gives to its handler and nothing else does, and it writes nothing at all
//! unless the blanks it is offered are all the pieces that were passed: a copy made on the way ends the connection.
//!
//! What waits in a socket's buffer are the file's own pages. Where a file is cut by somebody else, the kernel fills
//! the last of them with zeros, sent or not. So who finds a file shorter than it was, after a
//! piece of it was passed, does not go on from elsewhere: a whole body of wrong bytes could come of it.

use std::{
    collections::VecDeque,
    fmt,
    fs::File,
    io::{self, IoSlice},
    os::fd::{AsFd as _, BorrowedFd},
    pin::Pin,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use rustix::{
    fs::sendfile,
    io::Errno,
    net::{SendFlags, send},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_util::either::Either;

/// The most bytes of a piece. The costs of one are nothing to those of sending a mebibyte, which takes a
/// quarter of a millisecond: short enough for everyone else on the thread.
pub const PIECE: usize = 1024 * 1024;

/// What all blanks are parts of. The allocator gets it from the kernel as zeros, and memory that nobody has
/// touched takes up none.
static BLANK: LazyLock<&'static [u8]> = LazyLock::new(|| Vec::leak(vec![0; PIECE]));

/// Where pieces of files can be passed to the socket of one connection; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Outlet(Arc<Mutex<VecDeque<Piece>>>);

/// A part of a file, to be sent once.
pub struct Piece {
    file: Arc<File>,
    offset: u64,
    length: usize,
    lost: Box<dyn FnOnce(&io::Error) + Send>,
}

/// A connection in the clear, and what is passed to its outlet.
#[derive(Debug)]
pub struct Socket {
    stream: Either<TcpStream, UnixStream>,
    outlet: Outlet,
}

impl Outlet {
    /// Bytes to be sent in place of the piece, at once and uncopied. Never to be read.
    pub fn pass(&self, piece: Piece) -> Bytes {
        let blank = BLANK.get(..piece.length).unwrap_or(*BLANK);
        self.lock().push_back(piece);
        Bytes::from_static(blank)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Piece>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Piece {
    /// Up to [`PIECE`] of so many bytes at `offset`. `lost` hears of it when the file does not give them,
    /// on a thread that must not wait; the connection ends then.
    pub fn new(
        file: Arc<File>,
        offset: u64,
        length: usize,
        lost: impl FnOnce(&io::Error) + Send + 'static,
    ) -> Piece {
        Piece { file, offset, length: length.min(PIECE), lost: Box::new(lost) }
    }

    /// Sends what the socket takes of all that comes after the first `sent` bytes.
    fn send(&self, socket: BorrowedFd<'_>, sent: usize) -> io::Result<usize> {
        let mut offset = self.offset.saturating_add(sent as u64);
        let left = self.length.saturating_sub(sent);
        match sendfile(socket, &self.file, Some(&mut offset), left)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            more => Ok(more),
        }
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Piece { file, offset, length, lost: _ } = self;
        write!(f, "{length} bytes at {offset} of {file:?}")
    }
}

impl Socket {
    /// A connection to which nothing has been passed yet.
    pub fn new(stream: Either<TcpStream, UnixStream>) -> Socket {
        Socket { stream, outlet: Outlet::default() }
    }

    /// Its outlet, for who writes to it vectored, and puts nothing between it and the blanks.
    pub fn outlet(&self) -> Outlet {
        self.outlet.clone()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Socket { stream, outlet } = self.get_mut();
        let mut pieces = outlet.lock();
        if !are_blanks_of(slices, &pieces) {
            return Poll::Ready(Err(strayed()));
        }
        let first = slices.iter().find(|slice| !slice.is_empty());
        let Some(first) = first.filter(|_| !pieces.is_empty()) else {
            return Pin::new(stream).poll_write_vectored(context, slices);
        };
        match place_in_blank(first) {
            Some(sent) => poll_sending(stream, context, &mut pieces, sent),
            // What is to come fills the packet: an answer's head needs none of its own.
            None => poll_writing(stream, context, |socket| {
                Ok(send(socket, first, SendFlags::MORE | SendFlags::NOSIGNAL)?)
            }),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Sends of the first piece what comes after its first `sent` bytes.
fn poll_sending(
    stream: &Either<TcpStream, UnixStream>,
    context: &mut Context<'_>,
    pieces: &mut VecDeque<Piece>,
    sent: usize,
) -> Poll<io::Result<usize>> {
    let Some(piece) = pieces.front() else {
        return Poll::Ready(Err(strayed()));
    };
    let more = ready!(poll_writing(stream, context, |socket| piece.send(socket, sent)));
    match &more {
        Ok(more) if sent.saturating_add(*more) >= piece.length => {
            pieces.pop_front();
        }
        Err(error) if is_the_files(error) => {
            if let Some(piece) = pieces.pop_front() {
                (piece.lost)(error);
            }
        }
        Ok(_) | Err(_) => {}
    }
    Poll::Ready(more)
}

/// Has `write` write to the socket as soon as that takes something.
fn poll_writing(
    stream: &Either<TcpStream, UnixStream>,
    context: &mut Context<'_>,
    write: impl Fn(BorrowedFd<'_>) -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        let written = match stream {
            Either::Left(tcp) => {
                ready!(tcp.poll_write_ready(context))?;
                tcp.try_io(Interest::WRITABLE, || write(tcp.as_fd()))
            }
            Either::Right(unix) => {
                ready!(unix.poll_write_ready(context))?;
                unix.try_io(Interest::WRITABLE, || write(unix.as_fd()))
            }
        };
        match written.as_ref().map_err(io::Error::kind) {
            Err(io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Ok(_) | Err(_) => return Poll::Ready(written),
        }
    }
}

/// Whether the blanks among `slices` are those of all `pieces`, each with all that is left of it.
fn are_blanks_of(slices: &[IoSlice<'_>], pieces: &VecDeque<Piece>) -> bool {
    let end = |slice: &IoSlice<'_>| place_in_blank(slice)?.checked_add(slice.len());
    slices.iter().filter_map(end).eq(pieces.iter().map(|piece| piece.length))
}

/// Where a slice lies in the blank region; `None`: elsewhere.
fn place_in_blank(slice: &[u8]) -> Option<usize> {
    let place = slice.as_ptr().addr().checked_sub(BLANK.as_ptr().addr())?;
    (place < BLANK.len() && !slice.is_empty()).then_some(place)
}

/// Whether it is the file that failed, and not the client that has gone: it ended, its disk or its server
/// does not give it, or the file system has found it damaged.
fn is_the_files(error: &io::Error) -> bool {
    let of_files = [Errno::IO, Errno::STALE, Errno::UCLEAN, Errno::BADMSG];
    error.kind() == io::ErrorKind::UnexpectedEof
        || Errno::from_io_error(error).is_some_and(|errno| of_files.contains(&errno))
}

fn strayed() -> io::Error {
    io::Error::other("a piece of a file did not come to its socket as it was passed")
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        io::Write as _,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use bytes::Buf as _;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// Two ends of a connection over TCP, or of one between processes.
    async fn connection(is_tcp: bool) -> (Socket, Box<dyn AsyncRead + Send + Unpin>) {
        if !is_tcp {
            let (server, client) = UnixStream::pair().unwrap();
            return (Socket::new(Either::Right(server)), Box::new(client));
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        (Socket::new(Either::Left(server)), Box::new(client))
    }

    fn file(content: &[u8]) -> Arc<File> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        Arc::new(file)
    }

    fn content(length: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(length as u64);
        (0..length).map(|_| random.u8(1..)).collect()
    }

    fn piece(file: &Arc<File>, offset: usize, length: usize) -> Piece {
        Piece::new(Arc::clone(file), offset as u64, length, |_| ())
    }

    /// Writes as hyper does: all that waits is offered at once, and cut off at its front as it goes.
    async fn write(socket: &mut Socket, mut waiting: VecDeque<Bytes>) -> io::Result<()> {
        while !waiting.is_empty() {
            let slices: Vec<_> = waiting.iter().map(|bytes| IoSlice::new(bytes)).collect();
            let mut written =
                poll_fn(|context| Pin::new(&mut *socket).poll_write_vectored(context, &slices))
                    .await?;
            while written > 0 {
                let first = waiting.front_mut().unwrap();
                let gone = first.len().min(written);
                first.advance(gone);
                written -= gone;
                if first.is_empty() {
                    waiting.pop_front();
                }
            }
        }
        Ok(())
    }

    /// Whatever lies between the pieces, and however little the client takes at a time.
    #[tokio::test(flavor = "multi_thread")]
    async fn pieces_arrive_in_their_places() {
        let content = content(3 * PIECE);
        let file = file(&content);
        let parts = [(0, 1), (1, PIECE), (5, 4096), (PIECE - 7, PIECE), (2 * PIECE + 1, PIECE - 1)];
        for is_tcp in [true, false] {
            for at_once in [1000, 10_000_000] {
                let (mut socket, mut client) = connection(is_tcp).await;
                let (mut waiting, mut expected) = (VecDeque::new(), Vec::new());
                for (number, (offset, length)) in parts.into_iter().enumerate() {
                    let text = Bytes::from(format!("\r\nhead {number}").repeat(number % 3));
                    expected.extend_from_slice(&text);
                    waiting.extend(Some(text).filter(|text| !text.is_empty()));
                    expected.extend_from_slice(&content[offset..offset + length]);
                    waiting.push_back(socket.outlet().pass(piece(&file, offset, length)));
                }
                let writing = tokio::spawn(async move {
                    write(&mut socket, waiting).await.unwrap();
                    socket.write_all(b"end").await.unwrap();
                });
                expected.extend_from_slice(b"end");
                let (mut received, mut room) = (Vec::new(), vec![0; at_once]);
                while let Ok(read @ 1..) = client.read(&mut room).await {
                    received.extend_from_slice(&room[..read]);
                }
                writing.await.unwrap();
                assert!(received == expected, "over TCP: {is_tcp}, {at_once} bytes at a time");
            }
        }
    }

    /// Neither a copy, nor a part, nor what comes instead or out of order.
    #[tokio::test]
    async fn nothing_is_written_when_a_blank_goes_astray() {
        let file = file(&content(1000));
        let astray: [fn(Bytes, Bytes) -> Vec<Bytes>; 6] = [
            |first, second| vec![Bytes::copy_from_slice(&first), second],
            |first, second| vec![Bytes::copy_from_slice(&[&first[..], &second].concat())],
            |first, _| vec![first],
            |first, second| vec![second, first],
            |first, second| vec![first.slice(..50), second],
            |_, _| vec![Bytes::from_static(b"text")],
        ];
        for (number, astray) in astray.into_iter().enumerate() {
            let (mut socket, mut client) = connection(true).await;
            let outlet = socket.outlet();
            let first = outlet.pass(piece(&file, 0, 100));
            let second = outlet.pass(piece(&file, 100, 200));
            let offered = astray(first, second).into();
            assert!(write(&mut socket, offered).await.is_err(), "{number}");
            drop(socket);
            let mut received = Vec::new();
            client.read_to_end(&mut received).await.unwrap();
            assert!(received.is_empty(), "{number}");
        }
    }

    /// A file that ends early is told of; a client that goes is none of its business.
    #[tokio::test]
    async fn who_fails_is_told_apart() {
        for (length, is_told) in [(1000, true), (PIECE, false)] {
            let told = Arc::new(AtomicUsize::new(0));
            let heard = told.clone();
            let lost = move |_: &io::Error| {
                heard.fetch_add(1, Ordering::Relaxed);
            };
            let (mut socket, client) = connection(false).await;
            let blank = socket.outlet().pass(Piece::new(file(&content(length)), 0, PIECE, lost));
            let _client = Some(client).filter(|_| is_told);
            assert!(write(&mut socket, [blank].into()).await.is_err());
            assert_eq!(told.load(Ordering::Relaxed), usize::from(is_told));
        }
    }

    #[test]
    fn errors_of_files_are_told_from_those_of_connections() {
        let table = [
            (Errno::IO, true),
            (Errno::STALE, true),
            (Errno::UCLEAN, true),
            (Errno::BADMSG, true),
            (Errno::PIPE, false),
            (Errno::CONNRESET, false),
            (Errno::TIMEDOUT, false),
        ];
        for (errno, is_the_files) in table {
            assert_eq!(super::is_the_files(&errno.into()), is_the_files, "{errno}");
        }
    }

    #[test]
    fn a_piece_is_no_longer_than_its_blank() {
        let outlet = Outlet::default();
        assert_eq!(outlet.pass(piece(&file(b""), 0, 2 * PIECE)).len(), PIECE);
        assert!(place_in_blank(&content(10)).is_none());
        assert!(place_in_blank(&[]).is_none());
    }
}
