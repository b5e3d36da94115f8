//! Addresses and listeners: TCP, or a Unix socket.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Address {
    /// A TCP address. Port 0 lets the system choose.
    Tcp(SocketAddr),
    /// The path of a Unix socket, written `unix:/path`. It gets mode 0660; one that a dead process left behind is replaced.
    Unix(PathBuf),
    /// A socket that systemd opened and hands over, written `fd:3`: the first of the unit's sockets is 3.
    Handed(usize),
}

/// The number of the first socket that systemd hands over.
const FIRST_HANDED: usize = 3;

impl Default for Address {
    fn default() -> Self {
        Self::Tcp(SocketAddr::from(([127, 0, 0, 1], 8080)))
    }
}

impl Address {
    /// Whether only this machine reaches it.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
            // Who made the socket decided who reaches it.
            Self::Handed(_) => true,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Handed(number) => write!(f, "fd:{number}"),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err("expected unix:/path".to_owned()) } else { Ok(Self::Unix(path.into())) };
        }
        if let Some(number) = text.strip_prefix("fd:") {
            let number = number.parse().ok().filter(|number| *number >= FIRST_HANDED);
            return number.map(Self::Handed).ok_or_else(|| format!("expected fd:3 or more, got {text}"));
        }
        let expected = |error| format!("expected HOST:PORT, unix:/path or fd:3: {error}");
        let mut found = text.to_socket_addrs().map_err(expected)?;
        found.next().map(Self::Tcp).ok_or_else(|| format!("{text} has no address"))
    }
}

/// A bound socket, not yet in a runtime.
#[derive(Debug)]
pub(crate) enum Bound {
    Tcp(std::net::TcpListener),
    #[cfg(unix)]
    /// With the path, if the socket's file is ours to remove.
    Unix(std::os::unix::net::UnixListener, Option<PathBuf>),
}

impl Bound {
    pub(crate) fn new(address: &Address) -> std::io::Result<Self> {
        match address {
            Address::Tcp(address) => {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Tcp(listener))
            }
            #[cfg(unix)]
            Address::Unix(path) => {
                let listener = bind_unix(path)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Unix(listener, Some(path.clone())))
            }
            #[cfg(unix)]
            Address::Handed(number) => handed(*number),
            #[cfg(not(unix))]
            Address::Unix(_) | Address::Handed(_) => Err(std::io::Error::other("this system has no Unix sockets")),
        }
    }

    /// The address with the port that the system chose.
    pub(crate) fn address(&self) -> std::io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            #[cfg(unix)]
            Self::Unix(listener, _) => {
                let address = listener.local_addr()?;
                Ok(Address::Unix(address.as_pathname().map(PathBuf::from).unwrap_or_default()))
            }
        }
    }

    /// # Errors
    /// Outside of a runtime.
    pub(crate) fn listener(self) -> std::io::Result<Listener> {
        match self {
            Self::Tcp(listener) => tokio::net::TcpListener::from_std(listener).map(Listener::Tcp),
            #[cfg(unix)]
            Self::Unix(listener, path) => {
                let listener = tokio::net::UnixListener::from_std(listener)?;
                Ok(Listener::Unix { listener, _file: path.map(RemoveOnDrop) })
            }
        }
    }
}

/// A socket that another process opened for us. Each can be taken once.
#[cfg(unix)]
fn handed(number: usize) -> std::io::Result<Bound> {
    use std::sync::Mutex;
    static HANDED: Mutex<Option<listenfd::ListenFd>> = Mutex::new(None);

    let mut sockets = HANDED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let sockets = sockets.get_or_insert_with(listenfd::ListenFd::from_env);
    let place = number - FIRST_HANDED;
    if let Ok(Some(listener)) = sockets.take_tcp_listener(place) {
        listener.set_nonblocking(true)?;
        return Ok(Bound::Tcp(listener));
    }
    if let Ok(Some(listener)) = sockets.take_unix_listener(place) {
        listener.set_nonblocking(true)?;
        return Ok(Bound::Unix(listener, None));
    }
    Err(std::io::Error::other("no listening socket of this number was handed over (LISTEN_FDS, LISTEN_PID)"))
}

#[cfg(unix)]
fn bind_unix(path: &std::path::Path) -> std::io::Result<std::os::unix::net::UnixListener> {
    use std::io::ErrorKind;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    use std::os::unix::net::{UnixListener, UnixStream};

    let listener = match UnixListener::bind(path) {
        // Replaced only if it is a socket and nobody answers.
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
            match UnixStream::connect(path) {
                Err(refused) if is_socket && refused.kind() == ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)?;
                    UnixListener::bind(path)
                }
                _ => Err(error),
            }
        }
        outcome => outcome,
    }?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// A socket that accepts connections in a runtime.
pub(crate) enum Listener {
    Tcp(tokio::net::TcpListener),
    #[cfg(unix)]
    Unix {
        listener: tokio::net::UnixListener,
        _file: Option<RemoveOnDrop>,
    },
}

/// The path of a Unix socket, removed when the listener closes.
#[cfg(unix)]
pub(crate) struct RemoveOnDrop(PathBuf);

#[cfg(unix)]
impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        // Nobody can do anything about a socket file that stays; the next start replaces it.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// An accepted connection.
pub(crate) enum Stream {
    Tcp(tokio::net::TcpStream),
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
}

impl Listener {
    pub(crate) async fn accept(&self) -> std::io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Answers are written whole: waiting for more to send only delays them.
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            #[cfg(unix)]
            Self::Unix { listener, .. } => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_as_they_are_printed() {
        for text in ["127.0.0.1:8080", "[::1]:0", "unix:/run/nvembed.sock", "fd:3"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert!("localhost".parse::<Address>().is_err() && "unix:".parse::<Address>().is_err());
        assert!("fd:2".parse::<Address>().is_err() && "fd:x".parse::<Address>().is_err());
        assert!(Address::default().is_local() && !"0.0.0.0:80".parse::<Address>().unwrap().is_local());
    }

    #[cfg(unix)]
    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let address = Address::Unix(path.clone());
        let first = Bound::new(&address).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(Bound::new(&address).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
        drop(first);
        drop(Bound::new(&address).unwrap());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "a file of somebody").unwrap();
        assert!(Bound::new(&address).is_err() && path.is_file());
    }
}
