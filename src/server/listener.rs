//! Sockets to accept on: TCP and Unix.

use std::{
    fmt, fs, io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, fchmod};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio_util::either::Either;

use super::reach::Reach;
use crate::{access::Peer, config::Listen};

/// Connections that may wait to be accepted on a private socket.
const BACKLOG: u32 = 128;

/// A bound socket. A Unix socket's file is removed when this is dropped.
#[derive(Debug)]
pub struct Listener(Socket);

/// One accepted connection.
pub(super) type Stream = Either<TcpStream, UnixStream>;

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf),
}

/// An address that cannot be listened on, with what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {listen}: {cause}; {}", remedy(.listen, .cause))]
pub struct BindError {
    listen: Listen,
    #[source]
    cause: io::Error,
}

impl Listener {
    /// Binds a socket. Port 0 takes any free port. A Unix socket that nobody listens on any more
    /// is replaced.
    pub async fn bind(listen: &Listen) -> Result<Listener, BindError> {
        let bound = match listen {
            Listen::Tcp(address) => bind_tcp(*address).await,
            Listen::Unix(path) => bind_unix(path).await,
        };
        bound.map(Listener).map_err(|cause| BindError { listen: listen.clone(), cause })
    }

    /// Binds a Unix socket that nobody else may open, not even for a moment, at a path of any length.
    /// Replaces any socket that is there: its place is this process's own.
    ///
    /// # Errors
    /// What the file system says.
    pub fn bind_private(path: &Path) -> io::Result<Listener> {
        if is_socket(path) {
            fs::remove_file(path)?;
        }
        let socket = UnixSocket::new_stream()?;
        // The file that binding makes has the mode of the socket (unix(7) leaves it to the umask alone,
        // which is the whole process's; Linux takes both).
        fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        let reach = Reach::to(path)?;
        socket.bind(reach.path())?;
        Ok(Listener(Socket::Unix(socket.listen(BACKLOG)?, path.to_owned())))
    }

    /// The TCP address that was bound, with the port that was found for port 0. `None`: a Unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.0 {
            Socket::Tcp(_, address) => Some(*address),
            Socket::Unix(..) => None,
        }
    }

    /// Waits for a connection.
    pub(super) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match &self.0 {
            Socket::Tcp(listener, _) => {
                let (stream, address) = listener.accept().await?;
                // Fails only when the client is gone already, which its first read will tell.
                let _ = stream.set_nodelay(true);
                Ok((Either::Left(stream), Peer::Tcp(address)))
            }
            Socket::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Either::Right(stream), Peer::Unix))
            }
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Socket::Tcp(_, address) => fmt::Display::fmt(address, f),
            Socket::Unix(_, path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Socket::Unix(_, path) = &self.0 {
            // Gone already, or in a directory that is: either way it is out of the way.
            let _ = fs::remove_file(path);
        }
    }
}

async fn bind_tcp(address: SocketAddr) -> io::Result<Socket> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok(Socket::Tcp(listener, address))
}

async fn bind_unix(path: &Path) -> io::Result<Socket> {
    if is_abandoned_socket(path).await {
        fs::remove_file(path)?;
    }
    Ok(Socket::Unix(UnixListener::bind(path)?, path.to_owned()))
}

/// Whether `path` is a socket left behind by a process that was killed.
async fn is_abandoned_socket(path: &Path) -> bool {
    is_socket(path)
        && UnixStream::connect(path)
            .await
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

fn remedy(listen: &Listen, cause: &io::Error) -> String {
    match (listen, cause.kind()) {
        (_, io::ErrorKind::AddrInUse) => {
            "stop what listens there (another Larder?) or choose another address".to_owned()
        }
        (Listen::Tcp(_), io::ErrorKind::PermissionDenied) => {
            "choose a port from 1024 up, or give the process CAP_NET_BIND_SERVICE".to_owned()
        }
        (Listen::Tcp(address), _) => format!(
            "choose an address that this machine has, such as {}",
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port())
        ),
        (Listen::Unix(_), _) => {
            "choose a path in an existing directory that this user may write".to_owned()
        }
    }
}
