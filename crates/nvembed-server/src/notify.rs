//! What systemd is told, where it asked to be: units of `Type=notify`.

/// Sends a state, such as `READY=1`, to the socket that `NOTIFY_SOCKET` names.
#[cfg(target_os = "linux")]
pub(crate) fn tell(state: &str) {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = sent {
        tracing::warn!(%error, state, "systemd cannot be told");
    }
}

/// systemd is Linux's.
#[cfg(not(target_os = "linux"))]
pub(crate) fn tell(_: &str) {}
