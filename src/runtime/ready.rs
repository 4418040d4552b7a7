//! Tells others that everything listens: `--ports-file` and systemd's notification.
//!
//! It does not know when that is; the caller does.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

/// What `--ports-file` holds: one JSON object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ports {
    /// Listener name → bound address, `IP:PORT` or `unix:/path`.
    pub listeners: BTreeMap<String, String>,
    /// `IP:PORT` of the read-only admin endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    /// The admin unix socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_socket: Option<PathBuf>,
    /// Of this process.
    pub pid: u32,
}

impl Ports {
    /// Writes the file so that whoever sees it sees all of it: a new file beside it takes its place. Blocks.
    ///
    /// # Errors
    /// The folder does not exist or cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut json = serde_json::to_vec(self)?;
        json.push(b'\n');
        let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file name"))?;
        let mut beside = OsString::from(".");
        beside.push(name);
        beside.push(format!(".{}.tmp", self.pid));
        let beside = path.with_file_name(beside);
        let write = || {
            // Left over from a process of our id that died here; nobody else uses this name.
            match fs::remove_file(&beside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => (),
            }
            let mut file = OpenOptions::new().write(true).create_new(true).open(&beside)?;
            file.write_all(&json)?;
            file.sync_all()?;
            fs::rename(&beside, path)
        };
        let written = write();
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written
    }
}

/// systemd's end of `Type=notify` or `notify-reload`, see sd_notify(3); does nothing when nobody listens.
#[derive(Clone, Debug)]
pub struct Notifier {
    /// As in `NOTIFY_SOCKET`: an absolute path, or `@` and an abstract name.
    socket: Option<OsString>,
}

impl Notifier {
    /// As the service manager told us in the environment.
    pub fn from_environment() -> Self {
        Self { socket: std::env::var_os("NOTIFY_SOCKET").filter(|s| !s.is_empty()) }
    }

    /// Everything listens; also the end of a reload.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// We are leaving.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// A reload has begun; [`Notifier::ready`] ends it, also when the reload is refused.
    pub fn reloading(&self) {
        // Demanded by `Type=notify-reload`, which compares it with when it sent the signal.
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }

    /// One line for `systemctl status`; line breaks become blanks.
    pub fn status(&self, text: &str) {
        self.tell(&format!("STATUS={}", text.replace(['\n', '\r'], " ")));
    }

    fn tell(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = send(socket.as_bytes(), message.as_bytes()) {
            tracing::warn!(%error, "the service manager cannot be told");
        }
    }
}

fn send(socket: &[u8], message: &[u8]) -> io::Result<()> {
    let address = match socket {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(Path::new(std::ffi::OsStr::from_bytes(socket)))?,
        _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "NOTIFY_SOCKET is neither a path nor abstract")),
    };
    let datagram = UnixDatagram::unbound()?;
    datagram.set_write_timeout(Some(Duration::from_secs(1)))?;
    datagram.send_to_addr(message, &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(pid: u32) -> Ports {
        Ports {
            listeners: BTreeMap::from([("https".to_owned(), "127.0.0.1:8443".to_owned())]),
            admin: Some("127.0.0.1:9443".to_owned()),
            admin_socket: None,
            pid,
        }
    }

    #[test]
    fn the_ports_file_is_one_json_object_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("ports.json");
        ports(1).write(&path).expect("written");
        ports(2).write(&path).expect("written over");
        let text = fs::read_to_string(&path).expect("read");
        assert_eq!(text, "{\"listeners\":{\"https\":\"127.0.0.1:8443\"},\"admin\":\"127.0.0.1:9443\",\"pid\":2}\n");
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1);
    }

    #[test]
    fn a_ports_file_that_cannot_be_written_is_an_error_and_leaves_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        assert!(ports(1).write(&folder.path().join("no/such/folder.json")).is_err());
        let taken = folder.path().join("taken");
        fs::create_dir(&taken).expect("folder");
        fs::write(taken.join("x"), "").expect("file");
        assert!(ports(1).write(&taken).is_err());
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1);
    }

    fn received(socket: &UnixDatagram) -> String {
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
        let mut bytes = [0; 256];
        let count = socket.recv(&mut bytes).expect("a message");
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    #[test]
    fn the_service_manager_hears_of_start_reload_and_stop_on_a_path() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("bound");
        let notifier = Notifier { socket: Some(path.into()) };
        notifier.ready();
        assert_eq!(received(&manager), "READY=1");
        notifier.reloading();
        let reloading = received(&manager);
        let (first, at) = reloading.split_once("\nMONOTONIC_USEC=").expect("two lines");
        assert_eq!(first, "RELOADING=1");
        assert!(at.parse::<u64>().expect("a number") > 0);
        notifier.status("two\nlines");
        assert_eq!(received(&manager), "STATUS=two lines");
        notifier.stopping();
        assert_eq!(received(&manager), "STOPPING=1");
    }

    #[test]
    fn abstract_sockets_are_reached_and_absence_is_no_trouble() {
        let name = format!("bowline-ready-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let manager = UnixDatagram::bind_addr(&address).expect("bound");
        Notifier { socket: Some(format!("@{name}").into()) }.ready();
        assert_eq!(received(&manager), "READY=1");
        Notifier { socket: None }.ready();
        Notifier { socket: Some("relative".into()) }.ready();
        Notifier { socket: Some("/no/such/socket".into()) }.ready();
    }
}
