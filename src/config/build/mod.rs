//! From the mirror of the file to settings: fills defaults, makes paths absolute, and checks what must hold between
//! values and in the file system. Binds and resolves nothing.
//!
//! Whatever is wrong is reported and left out, and the rest is still built, so that all problems come to light at once.

mod advice;
mod listener;
mod pool;
mod route;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::types::ListenAddress;

use super::default;
use super::file;
use super::proxy::{AccessLog, Admin, Graphite, Live, Log, Settings, Startup};
use super::reader::Problems;
use super::source::Span;

/// Where settings are built: the folder paths are relative to, and what was found on the way.
pub(in crate::config) struct Site<'a, 's> {
    folder: &'a Path,
    pub(in crate::config) problems: &'a mut Problems<'s>,
    /// Every path the file names, absolute, and where it does.
    paths: Vec<(PathBuf, Span)>,
    /// Key files that have been looked at: several pools may share one, and its problem is told once.
    key_files: HashSet<PathBuf>,
}

impl<'a, 's> Site<'a, 's> {
    pub(in crate::config) fn new(folder: &'a Path, problems: &'a mut Problems<'s>) -> Self {
        Self { folder, problems, paths: Vec::new(), key_files: HashSet::new() }
    }
}

/// Settings, complete if there were no problems, and every path the file names with its position.
pub(super) fn build(file: &file::File, folder: &Path, problems: &mut Problems<'_>) -> (Settings, Vec<(PathBuf, Span)>) {
    let mut site = Site::new(folder, problems);
    let admin = site.admin(file.admin.get());
    let listeners = listener::listeners(file, &mut site);
    refuse_clashes(file, &mut site);
    let pools = pool::pools(file, &mut site);
    let routes = route::routes(file, &mut site);
    advice::advise(file, &mut site);
    let settings = Settings {
        startup: Startup {
            threads: file.threads.get().and_then(|threads| usize::try_from(threads.0).ok()),
            admin,
            upstream_keepalive_connections: as_usize(
                file.upstream
                    .get()
                    .and_then(|upstream| upstream.keepalive_connections.get())
                    .map_or(default::UPSTREAM_KEEPALIVE_CONNECTIONS, |count| count.0),
            ),
            log: log(file.log.get()),
            graphite: graphite(file.metrics.get(), &mut site),
        },
        live: Live {
            listeners,
            pools,
            routes,
            access_log: site.access_log(file.access_log.get()),
            shutdown_deadline: file
                .shutdown
                .get()
                .and_then(|shutdown| shutdown.deadline.get())
                .map_or(default::SHUTDOWN_DEADLINE, |deadline| deadline.0),
        },
    };
    (settings, site.paths)
}

/// The operator's endpoint alone.
pub(super) fn admin(admin: Option<&file::Admin>, folder: &Path, problems: &mut Problems<'_>) -> Admin {
    Site::new(folder, problems).admin(admin)
}

pub(in crate::config) fn log(log: Option<&file::Log>) -> Log {
    Log {
        level: log
            .and_then(|log| log.level.get())
            .map_or_else(|| default::LOG_LEVEL.to_owned(), |level| level.0.clone()),
        format: log.and_then(|log| log.format.get()).copied().unwrap_or(default::LOG_FORMAT),
    }
}

pub(in crate::config) fn graphite(metrics: Option<&file::Metrics>, site: &mut Site<'_, '_>) -> Option<Graphite> {
    let written = metrics?.graphite.spanned()?;
    let (span, written) = (written.span(), written.get_ref());
    if written.address.is_missing() {
        let message = "`[metrics.graphite]` does not say where to".to_owned();
        site.problems.at(&span, message, "add it, for example `address = \"graphite.example.org:2003\"`".to_owned());
    }
    let address = written.address.get()?;
    Some(Graphite {
        host: address.host.clone(),
        port: address.port,
        prefix: written.prefix.get().map(|prefix| prefix.0.clone()),
        interval: written.interval.get().map_or(default::GRAPHITE_INTERVAL, |interval| interval.0),
    })
}

impl Site<'_, '_> {
    fn admin(&mut self, admin: Option<&file::Admin>) -> Admin {
        let address = admin.and_then(|admin| admin.address.get()).copied();
        let socket = admin.and_then(|admin| admin.socket.spanned());
        let socket = socket.map(|socket| {
            let path = self.path(&socket.get_ref().0, socket.span());
            // sun_path holds 108 bytes with its terminating zero (unix(7)).
            if path.as_os_str().len() > 107 {
                let message = format!("the path `{}` is too long for a unix socket", path.display());
                self.problems.at(&socket.span(), message, "use a path of 107 bytes at most");
            }
            self.need_folder_of(&path, &socket.span());
            path
        });
        Admin { address, socket }
    }

    pub(in crate::config) fn access_log(&mut self, log: Option<&file::AccessLog>) -> AccessLog {
        let file = log.and_then(|log| log.file.spanned()).map(|file| {
            let path = self.path(&file.get_ref().0, file.span());
            if path.is_dir() {
                let message = format!("`{}` is a folder", file.get_ref().0.display());
                self.problems.at(&file.span(), message, "name a file");
            }
            self.need_folder_of(&path, &file.span());
            path
        });
        AccessLog { enabled: log.and_then(|log| log.enabled.get()).copied().unwrap_or(default::ACCESS_LOG), file }
    }

    /// The path as the program uses it; remembered with its position.
    pub(in crate::config) fn path(&mut self, path: &Path, span: Span) -> PathBuf {
        let absolute = self.folder.join(path);
        self.paths.push((absolute.clone(), span));
        absolute
    }

    /// A file whose reader could forge what we seal. `when_missing`: the remedy, where it is not made at the first start.
    pub(in crate::config) fn secret_file(&mut self, path: &Path, span: Span, when_missing: Option<&str>) -> PathBuf {
        let absolute = self.path(path, span.clone());
        if !self.key_files.insert(absolute.clone()) {
            return absolute;
        }
        let shown = absolute.display();
        match fs::metadata(&absolute) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(remedy) = when_missing {
                    self.problems.at(&span, format!("there is no key file `{shown}`"), remedy);
                }
            }
            Err(error) => {
                let message = format!("the key file `{shown}` cannot be read: {error}");
                self.problems.at(&span, message, "make it readable for this process's user only, mode 0600");
            }
            Ok(metadata) if !metadata.is_file() => {
                self.problems.at(&span, format!("`{shown}` is not a file"), "name a file");
            }
            Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
                let mode = metadata.permissions().mode() & 0o7777;
                let message = format!("the key file `{shown}` has mode {mode:04o}: others may read or change it");
                self.problems.at(
                    &span,
                    message,
                    format!("`chmod 600 {shown}`, and consider the key known: make a new one"),
                );
            }
            Ok(_) => {
                if let Some(message) = unreadable(&absolute) {
                    self.problems.at(&span, message, "make it readable for this process's user only, mode 0600");
                }
            }
        }
        absolute
    }

    fn need_folder_of(&mut self, path: &Path, span: &Span) {
        if let Some(folder) = path.parent()
            && !folder.is_dir()
        {
            let message = format!("there is no folder `{}`", folder.display());
            self.problems.at(span, message, "make it, or name another place");
        }
    }

    /// Reports a name that was there before; `what` is its kind.
    pub(in crate::config) fn refuse_duplicate<'n>(
        &mut self,
        seen: &mut HashMap<&'n str, Span>,
        name: &'n str,
        span: Span,
        what: &str,
    ) {
        if let Some(first) = seen.get(name) {
            let remedy = format!("rename one of them; the other is in line {}", self.problems.line(first));
            self.problems.at(&span, format!("two {what} are named `{name}`"), remedy);
        } else {
            seen.insert(name, span);
        }
    }
}

/// Reports every listener whose address is taken by an earlier one or by the operator's endpoint.
fn refuse_clashes(file: &file::File, site: &mut Site<'_, '_>) {
    let mut claims: Vec<(ListenAddress, Span, String)> = Vec::new();
    if let Some(admin) = file.admin.get() {
        if let Some(address) = admin.address.spanned() {
            claims.push((ListenAddress::Inet(*address.get_ref()), address.span(), "`admin.address`".to_owned()));
        }
        if let Some(socket) = admin.socket.spanned() {
            let path = site.folder.join(&socket.get_ref().0);
            claims.push((ListenAddress::Unix(path), socket.span(), "`admin.socket`".to_owned()));
        }
    }
    for listener in file.listener.elements() {
        let Some(address) = listener.get_ref().address.spanned() else { continue };
        let taken = claims.iter().find(|(other, ..)| address.get_ref().clashes_with(other));
        if let Some((other, span, owner)) = taken {
            let message = format!("the address `{}` clashes with `{other}` of {owner}", address.get_ref());
            let remedy = format!("use another port or address; the other is in line {}", site.problems.line(span));
            site.problems.at(&address.span(), message, remedy);
        }
        let owner =
            listener.get_ref().name.get().map_or("another listener".to_owned(), |n| format!("listener `{}`", n.0));
        claims.push((address.get_ref().clone(), address.span(), owner));
    }
}

/// Counts are bounded far below what a `usize` holds.
fn as_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// As [`as_usize`].
fn as_u32(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Why a file that must be there cannot be used, if so. Opens it, reads nothing.
fn unreadable(path: &Path) -> Option<String> {
    match fs::metadata(path) {
        Err(error) => Some(format!("`{}` cannot be read: {error}", path.display())),
        Ok(metadata) if !metadata.is_file() => Some(format!("`{}` is not a file", path.display())),
        Ok(_) => fs::File::open(path).err().map(|error| format!("`{}` cannot be read: {error}", path.display())),
    }
}
