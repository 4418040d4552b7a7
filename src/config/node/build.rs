//! From the mirror of a node's file to settings.

use std::collections::HashMap;
use std::path::Path;

use crate::config::build::{self, Site};
use crate::config::default;
use crate::config::reader::Problems;
use crate::config::value::DatabaseAddress;

use super::{Database, DatabaseUrl, Listener, Packages, Place, Settings, Storage, file};

pub(super) fn build(file: &file::File, folder: &Path, problems: &mut Problems<'_>) -> Option<Settings> {
    let mut site = Site::new(folder, problems);
    let listeners = listeners(file, &mut site);
    let database = database(file.database.get(), &mut site);
    let packages = place(file.storage.get().and_then(|storage| storage.default.get()), &mut site);
    let access_log = site.access_log(file.access_log.get());
    let key_file = file.key_file.spanned().map(|path| {
        let (written, span) = (&path.get_ref().0, path.span());
        site.secret_file(written, span, Some("make one with `bowline keygen FILE`, or copy that of another node"))
    });
    let limits = file.packages.get();
    let cache = file.cache.get().and_then(|cache| cache.path.spanned());
    let cache = match cache {
        Some(path) => site.path(&path.get_ref().0, path.span()),
        None => site.path(Path::new(default::CACHE_PATH), 0..0),
    };
    Some(Settings {
        name: file.name.get().map(|name| name.0.clone()),
        threads: file.threads.get().and_then(|threads| usize::try_from(threads.0).ok()),
        external_url: file.external_url.get().map(|url| url.0.clone()),
        key_file: key_file?,
        listeners,
        database,
        storage: Storage { packages },
        cache,
        packages: Packages {
            file_bytes_max: limits
                .and_then(|limits| limits.file_bytes_max.get())
                .map_or(default::PACKAGE_BYTES_MAX.bytes(), |size| size.0),
        },
        log: build::log(file.log.get()),
        access_log,
        shutdown_deadline: file
            .shutdown
            .get()
            .and_then(|shutdown| shutdown.deadline.get())
            .map_or(default::NODE_SHUTDOWN_DEADLINE, |deadline| deadline.0),
    })
}

fn listeners(file: &file::File, site: &mut Site<'_, '_>) -> Vec<Listener> {
    let listeners = file.listener.elements();
    let mut names = HashMap::new();
    for name in listeners.iter().filter_map(|listener| listener.get_ref().name.spanned()) {
        site.refuse_duplicate(&mut names, name.get_ref(), name.span(), "listeners");
    }
    let build = |listener: &file::Listener| {
        Some(Listener {
            name: listener.name.get()?.0.clone(),
            address: listener.address.get()?.clone(),
            trusted: listener.trusted.elements().iter().map(|net| *net.get_ref()).collect(),
        })
    };
    listeners.iter().filter_map(|listener| build(listener.get_ref())).collect()
}

fn database(written: Option<&file::Database>, site: &mut Site<'_, '_>) -> Database {
    let url = written.and_then(|database| database.url.spanned());
    let span = url.map(|url| url.span()).unwrap_or_default();
    let url = match url.map(|url| url.get_ref()) {
        Some(DatabaseAddress::Postgres(url)) => DatabaseUrl::Postgres(url.clone()),
        Some(DatabaseAddress::Sqlite(path)) => DatabaseUrl::Sqlite(site.path(path, span)),
        None => DatabaseUrl::Sqlite(site.path(Path::new(default::DATABASE_FILE), span)),
    };
    Database {
        url,
        connections: written
            .and_then(|database| database.connections.get())
            .map_or(default::DATABASE_CONNECTIONS, |count| count.0)
            .try_into()
            .unwrap_or(u32::MAX),
        timeout: written
            .and_then(|database| database.timeout.get())
            .map_or(default::DATABASE_TIMEOUT, |timeout| timeout.0),
    }
}

fn place(written: Option<&file::Place>, site: &mut Site<'_, '_>) -> Place {
    let path = written.and_then(|place| place.path.spanned());
    Place::Directory(match path {
        Some(path) => site.path(&path.get_ref().0, path.span()),
        None => site.path(Path::new(default::STORAGE_PATH), 0..0),
    })
}
