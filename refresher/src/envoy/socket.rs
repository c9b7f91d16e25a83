//! The Unix socket: ours alone to make, and only our user, root and those whom the operator names may use it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::serve::Listener;
use tokio::net::{UnixListener, UnixStream, unix};

use crate::files::{self, io_error};

/// The pause after a failed accept: what it ran out of (file descriptors, memory) may come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The longest path of a socket: `sun_path` has 108 bytes, one of them the end (unix(7)).
const MAX_PATH_BYTES: usize = 107;

/// The reason why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system said no.
    #[error(transparent)]
    File(#[from] files::Error),
    /// The system has no room for it.
    #[error(
        "{}: a socket's path has {MAX_PATH_BYTES} bytes at most, and this one has {}",
        .0.display(),
        .0.as_os_str().len()
    )]
    TooLong(PathBuf),
    /// Something that is not our dead socket is in its place.
    #[error("{}: {found}; it was left as it is", path.display())]
    InTheWay {
        /// The socket's path.
        path: PathBuf,
        /// The thing that is there.
        found: &'static str,
    },
}

/// A listener that turns strangers away (SO_PEERCRED, unix(7)).
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
}

impl Socket {
    /// Makes the socket with mode 0600 in a directory of mode 0700. A socket that a dead process of ours left is
    /// replaced.
    ///
    /// # Errors
    /// If the path is too long, something else is there, or somebody answers on it.
    pub async fn bind(path: &Path) -> Result<Socket, Error> {
        if path.as_os_str().len() > MAX_PATH_BYTES {
            return Err(Error::TooLong(path.to_owned()));
        }
        remove_stale(path).await?;
        let listener = UnixListener::bind(path).map_err(io_error(path, "listen on it"))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .map_err(io_error(path, "set its mode"))?;
        Ok(Socket { listener })
    }
}

/// True for the users whose processes are answered: our own, and root.
fn may_use(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

async fn remove_stale(path: &Path) -> Result<(), Error> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(path, "look at it")(error).into()),
    };
    let in_the_way = |found| {
        Err(Error::InTheWay {
            path: path.to_owned(),
            found,
        })
    };
    if !metadata.file_type().is_socket() {
        return in_the_way("expected a socket or nothing, found another kind of file");
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return in_the_way("another user's socket is there");
    }
    match UnixStream::connect(path).await {
        Ok(_) => in_the_way("somebody answers on it"),
        Err(_) => Ok(fs::remove_file(path).map_err(io_error(path, "remove the old socket"))?),
    }
}

impl Listener for Socket {
    type Io = UnixStream;
    type Addr = unix::SocketAddr;

    async fn accept(&mut self) -> (UnixStream, unix::SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => match stream.peer_cred() {
                    Ok(peer) if may_use(peer.uid()) => return (stream, address),
                    Ok(peer) => tracing::warn!(
                        uid = peer.uid(),
                        "turned a foreign user away from the socket"
                    ),
                    Err(error) => tracing::warn!(%error, "cannot tell who is at the socket"),
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the socket");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<unix::SocketAddr> {
        self.listener.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> (tempfile::TempDir, PathBuf) {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("refresher.sock");
        (outer, path)
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let (_outer, path) = path();
        let live = Socket::bind(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(matches!(
            Socket::bind(&path).await,
            Err(Error::InTheWay { .. })
        ));
        drop(live);
        Socket::bind(&path).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_as_it_is() {
        let (_outer, path) = path();
        fs::write(&path, "precious").unwrap();
        assert!(matches!(
            Socket::bind(&path).await,
            Err(Error::InTheWay { .. })
        ));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn our_user_and_root_may_use_it() {
        let us = rustix::process::geteuid().as_raw();
        assert!(may_use(0) && may_use(us) && !may_use(4_000_002));
    }
}
