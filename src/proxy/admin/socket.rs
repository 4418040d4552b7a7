//! The operator's unix socket: mode 0660, never taken from a process that still answers.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

use crate::runtime::socket_file::SocketFile;

/// A bound socket and its file; the file goes when this does.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    _file: SocketFile,
}

/// Why the socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody answers on it.
    #[error("admin socket `{0}` belongs to a running process; give this one another `[admin] socket`")]
    Held(PathBuf),
    /// It would have to be deleted, and it is not ours to delete.
    #[error("admin socket `{0}` exists and is not a socket; move it away or name another path")]
    NotASocket(PathBuf),
    /// Anything the system says.
    #[error("cannot bind admin socket `{path}`")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl AdminSocket {
    /// Binds `path`, replacing what a process that is gone has left there. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// When somebody answers there, something else is there, or the system refuses.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let fail = |source| BindError::Io { path: path.to_owned(), source };
        clear(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(fail)?;
        socket.bind(&SockAddr::unix(path).map_err(fail)?).map_err(fail)?;
        let file = SocketFile::of(path).map_err(fail)?;
        // Nobody can connect before `listen`, so there is no moment at which others than those named could.
        fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(fail)?;
        socket.listen(BACKLOG).map_err(fail)?;
        socket.set_nonblocking(true).map_err(fail)?;
        let listener = UnixListener::from_std(std::os::unix::net::UnixListener::from(socket)).map_err(fail)?;
        Ok(Self { listener, _file: file })
    }

    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

/// Removes the socket of a process that is gone.
fn clear(path: &Path) -> Result<(), BindError> {
    let fail = |source| BindError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(fail)?;
    // Without blocking: a process whose queue is full (EAGAIN) is alive too.
    socket.set_nonblocking(true).map_err(fail)?;
    match socket.connect(&SockAddr::unix(path).map_err(fail)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(fail),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(fail(error)),
        Ok(()) | Err(_) => Err(BindError::Held(path.to_owned())),
    }
}

const BACKLOG: i32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn the_file_is_for_owner_and_group_and_goes_with_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let socket = AdminSocket::bind(&path).unwrap();
        assert_eq!(mode(&path), 0o660);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        // The standard library leaves the file behind, as a killed process does.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let socket = AdminSocket::bind(&path).unwrap();
        assert!(matches!(AdminSocket::bind(&path), Err(BindError::Held(_))));
        assert!(path.exists(), "the refused one must not take the file away");
        drop(socket);
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.txt");
        fs::write(&path, "mine").unwrap();
        assert!(matches!(AdminSocket::bind(&path), Err(BindError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[tokio::test]
    async fn a_successors_file_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let first = AdminSocket::bind(&path).unwrap();
        fs::rename(&path, dir.path().join("moved")).unwrap();
        let second = AdminSocket::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
    }
}
