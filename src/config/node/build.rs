//! From the mirror of a node's file to settings.

use std::collections::HashMap;
use std::path::Path;

use toml::Spanned;

use crate::config::build::{self, Site};
use crate::config::default;
use crate::config::reader::Problems;
use crate::config::value::{DatabaseAddress, PlainText};
use crate::config::word::StorageType;
use crate::types::ByteSize;

use super::{
    Auth, Builder, Content, Database, DatabaseUrl, Garbage, Jobs, Listener, Mail, Packages, Place, S3, Settings,
    Storage, Where, file,
};

pub(super) fn build(file: &file::File, folder: &Path, problems: &mut Problems<'_>) -> Option<Settings> {
    let mut site = Site::new(folder, problems);
    let listeners = listeners(file, &mut site);
    let database = database(file.database.get(), &mut site);
    let storage = storage(file.storage.get(), &mut site);
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
    let landing_dir = file.landing_dir.spanned().map(|path| site.path(&path.get_ref().0, path.span()));
    let builder = builder(file.builder.get(), &mut site);
    let content = content(file.content.get(), &mut site);
    let mail = mail(file.mail.get(), &mut site);
    let auth = auth(file.auth.get(), &mut site);
    let graphite = build::graphite(file.metrics.get(), &mut site);
    let external_url = file.external_url.get().map(|url| url.0.clone());
    if let Some(url) = file.content.get().and_then(|content| content.external_url.spanned())
        && external_url.as_ref().is_none_or(|other| authority(other) == authority(&url.get_ref().0))
    {
        let (message, remedy) = match external_url {
            Some(_) => ("content would have the name of everything else", "give it a name of its own"),
            None => ("content has a name of its own, all else has none", "write `external_url` at the top too"),
        };
        site.problems.at(&url.span(), message.to_owned(), remedy.to_owned());
        return None;
    }
    Some(Settings {
        name: file.name.get().map(|name| name.0.clone()),
        threads: file.threads.get().and_then(|threads| usize::try_from(threads.0).ok()),
        external_url,
        landing_dir,
        auth,
        key_file: key_file?,
        listeners,
        database,
        storage: storage?,
        cache,
        cache_bytes_max: file
            .cache
            .get()
            .and_then(|cache| cache.bytes_max.get())
            .map_or(default::CACHE_BYTES_MAX.bytes(), |size| size.0),
        packages: Packages {
            file_bytes_max: limits
                .and_then(|limits| limits.file_bytes_max.get())
                .map_or(default::PACKAGE_BYTES_MAX.bytes(), |size| size.0),
        },
        jobs: jobs(file.jobs.get()),
        builder,
        content,
        mail,
        garbage: garbage(file.garbage.get()),
        log: build::log(file.log.get()),
        access_log,
        graphite,
        shutdown_deadline: file
            .shutdown
            .get()
            .and_then(|shutdown| shutdown.deadline.get())
            .map_or(default::NODE_SHUTDOWN_DEADLINE, |deadline| deadline.0),
    })
}

/// Of a URL without a path.
fn authority(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, authority)| authority)
}

fn auth(written: Option<&file::Auth>, site: &mut Site<'_, '_>) -> Auth {
    let key = written.and_then(|auth| auth.bootstrap_key_file.spanned());
    Auth {
        bootstrap_key_file: key.map(|path| {
            let how = "make one: `openssl rand -base64 32`";
            site.secret_file(&path.get_ref().0, path.span(), Some(how))
        }),
        session_idle: written.and_then(|auth| Some(auth.session_idle.get()?.0)).unwrap_or(default::SESSION_IDLE),
        session_lifetime: written
            .and_then(|auth| Some(auth.session_lifetime.get()?.0))
            .unwrap_or(default::SESSION_LIFETIME),
    }
}

fn jobs(written: Option<&file::Jobs>) -> Jobs {
    let number = |count: Option<u64>, default: u64| usize::try_from(count.unwrap_or(default)).unwrap_or(usize::MAX);
    Jobs {
        collect: number(written.and_then(|jobs| Some(jobs.collect.get()?.0)), default::COLLECT_JOBS),
        sync: number(written.and_then(|jobs| Some(jobs.sync.get()?.0)), default::SYNC_JOBS),
        build: number(written.and_then(|jobs| Some(jobs.build.get()?.0)), default::BUILD_JOBS),
        deploy: number(written.and_then(|jobs| Some(jobs.deploy.get()?.0)), default::DEPLOY_JOBS),
        report: number(written.and_then(|jobs| Some(jobs.report.get()?.0)), default::REPORT_JOBS),
    }
}

fn builder(written: Option<&file::Builder>, site: &mut Site<'_, '_>) -> Builder {
    let text = |key: Option<&PlainText>| key.map(|text| text.0.clone());
    let paths = written.map(|builder| builder.readable.elements()).unwrap_or_default();
    let uid = written.and_then(|builder| Some(builder.uid.get()?.0)).unwrap_or(default::BUILDER_UID);
    Builder {
        every: written.and_then(|builder| Some(builder.every.get()?.0)).unwrap_or(default::SYNC_EVERY),
        pypi: written.and_then(|builder| text(builder.pypi.get())),
        cran: written.and_then(|builder| text(builder.cran.get())),
        python: written.and_then(|b| text(b.python.get())).unwrap_or_else(|| default::BUILDER_PYTHON.to_owned()),
        r: written.and_then(|b| text(b.r.get())).unwrap_or_else(|| default::BUILDER_R.to_owned()),
        readable: paths.iter().map(|path| site.path(&path.get_ref().0, path.span())).collect(),
        uid: u32::try_from(uid).unwrap_or(u32::MAX),
        timeout: written.and_then(|b| Some(b.timeout.get()?.0)).unwrap_or(default::BUILDER_TIMEOUT),
        memory_max: written
            .and_then(|builder| Some(builder.memory_max.get()?.0))
            .unwrap_or(default::BUILDER_MEMORY_MAX.bytes()),
        disk_max: written
            .and_then(|builder| Some(builder.disk_max.get()?.0))
            .unwrap_or(default::BUILDER_DISK_MAX.bytes()),
    }
}

fn content(written: Option<&file::Content>, site: &mut Site<'_, '_>) -> Content {
    let text = |key: Option<&PlainText>| key.map(|text| text.0.clone());
    let paths = written.map(|content| content.readable.elements()).unwrap_or_default();
    let programs = |written: Option<&[Spanned<PlainText>]>, default: &str| match written {
        Some(all) if !all.is_empty() => all.iter().map(|text| text.get_ref().0.clone()).collect(),
        _ => vec![default.to_owned()],
    };
    let count = |count: Option<u64>, default: u64| usize::try_from(count.unwrap_or(default)).unwrap_or(usize::MAX);
    let size = |size: Option<u64>, default: ByteSize| size.unwrap_or(default.bytes());
    let told = written.and_then(|content| Some(content.uid.get()?.0));
    let uid = u32::try_from(told.unwrap_or(default::CONTENT_UID)).unwrap_or(u32::MAX);
    let counted = written.and_then(|content| Some(content.uid_count.get()?.0));
    let uid_count = counted.unwrap_or(if told.is_some() { 1 } else { default::CONTENT_UID_COUNT });
    Content {
        external_url: written.and_then(|content| content.external_url.get()).map(|url| url.0.clone()),
        bundle_bytes_max: size(
            written.and_then(|content| Some(content.bundle_bytes_max.get()?.0)),
            default::BUNDLE_BYTES_MAX,
        ),
        unpacked_bytes_max: size(
            written.and_then(|content| Some(content.unpacked_bytes_max.get()?.0)),
            default::UNPACKED_BYTES_MAX,
        ),
        uid,
        uid_count: u32::try_from(uid_count).unwrap_or(1).min(u32::MAX - uid),
        network: written.and_then(|c| c.network.get().copied()).unwrap_or(default::CONTENT_NETWORK),
        network_choice: written.and_then(|c| c.network_choice.get().copied()).unwrap_or(false),
        network_denied: written
            .map(|content| content.network_denied.elements())
            .unwrap_or_default()
            .iter()
            .map(|net| *net.get_ref())
            .collect(),
        run_as: written
            .map(|content| content.run_as.elements())
            .unwrap_or_default()
            .iter()
            .map(|name| name.get_ref().0.clone())
            .collect(),
        readable: paths.iter().map(|path| site.path(&path.get_ref().0, path.span())).collect(),
        writable: written
            .map(|content| content.writable.elements())
            .unwrap_or_default()
            .iter()
            .map(|path| site.path(&path.get_ref().0, path.span()))
            .collect(),
        python: programs(written.map(|content| content.python.elements()), default::CONTENT_PYTHON),
        r: programs(written.map(|content| content.r.elements()), default::CONTENT_R),
        uv: written.and_then(|content| text(content.uv.get())).unwrap_or_else(|| default::CONTENT_UV.to_owned()),
        quarto: written
            .and_then(|content| text(content.quarto.get()))
            .unwrap_or_else(|| default::CONTENT_QUARTO.to_owned()),
        nodejs: written
            .and_then(|content| text(content.nodejs.get()))
            .unwrap_or_else(|| default::CONTENT_NODEJS.to_owned()),
        pypi: written.and_then(|content| text(content.pypi.get())),
        cran: written.and_then(|content| text(content.cran.get())),
        init_timeout: written
            .and_then(|content| Some(content.init_timeout.get()?.0))
            .unwrap_or(default::CONTENT_INIT_TIMEOUT),
        idle_timeout: written
            .and_then(|content| Some(content.idle_timeout.get()?.0))
            .unwrap_or(default::CONTENT_IDLE_TIMEOUT),
        read_timeout: written
            .and_then(|content| Some(content.read_timeout.get()?.0))
            .unwrap_or(default::CONTENT_READ_TIMEOUT),
        connection_timeout: written
            .and_then(|content| Some(content.connection_timeout.get()?.0))
            .unwrap_or(default::CONTENT_CONNECTION_TIMEOUT),
        session_hold: written
            .and_then(|content| Some(content.session_hold.get()?.0))
            .unwrap_or(default::CONTENT_SESSION_HOLD),
        session_bytes_max: size(
            written.and_then(|content| Some(content.session_bytes_max.get()?.0)),
            default::CONTENT_SESSION_BYTES_MAX,
        ),
        sessions_bytes_max: size(
            written.and_then(|content| Some(content.sessions_bytes_max.get()?.0)),
            default::CONTENT_SESSIONS_BYTES_MAX,
        ),
        max_processes: count(
            written.and_then(|content| Some(content.max_processes.get()?.0)),
            default::CONTENT_MAX_PROCESSES,
        ),
        max_connections: count(
            written.and_then(|content| Some(content.max_connections.get()?.0)),
            default::CONTENT_MAX_CONNECTIONS,
        ),
        environment_timeout: written
            .and_then(|content| Some(content.environment_timeout.get()?.0))
            .unwrap_or(default::CONTENT_ENVIRONMENT_TIMEOUT),
        environment_bytes_max: size(
            written.and_then(|content| Some(content.environment_bytes_max.get()?.0)),
            default::CONTENT_ENVIRONMENT_BYTES_MAX,
        ),
        cache_bytes_max: size(
            written.and_then(|content| Some(content.cache_bytes_max.get()?.0)),
            default::CONTENT_CACHE_BYTES_MAX,
        ),
        cache_unused: written
            .and_then(|content| Some(content.cache_unused.get()?.0))
            .unwrap_or(default::CONTENT_CACHE_UNUSED),
        render_timeout: written
            .and_then(|content| Some(content.render_timeout.get()?.0))
            .unwrap_or(default::CONTENT_RENDER_TIMEOUT),
        renderings_kept: written
            .and_then(|content| Some(content.renderings_kept.get()?.0))
            .unwrap_or(default::CONTENT_RENDERINGS_KEPT)
            .try_into()
            .unwrap_or(u32::MAX),
        bundles_kept: written
            .and_then(|content| Some(content.bundles_kept.get()?.0))
            .unwrap_or(default::CONTENT_BUNDLES_KEPT)
            .try_into()
            .unwrap_or(u32::MAX),
        memory_max: written.and_then(|content| Some(content.memory_max.get()?.0)),
        cpus_max: written.and_then(|content| Some(content.cpus_max.get()?.0)),
        disk_max: size(written.and_then(|content| Some(content.disk_max.get()?.0)), default::CONTENT_DISK_MAX),
    }
}

fn mail(written: Option<&file::Mail>, site: &mut Site<'_, '_>) -> Option<Mail> {
    let written = written?;
    let text = |key: Option<&PlainText>| key.map(|text| text.0.clone());
    let server = written.server.spanned()?;
    let (span, server) = (server.span(), server.get_ref().0.clone());
    let Some(from) = written.from.get().map(|from| from.0.clone()) else {
        let message = "`[mail]` does not say who mail is from".to_owned();
        // One that is written wrong was told of.
        if written.from.spanned().is_none() {
            site.problems.at(&span, message, "write `from = \"Reports <reports@example.org>\"`".to_owned());
        }
        return None;
    };
    let password = written.password_file.spanned().map(|path| {
        site.secret_file(&path.get_ref().0, path.span(), Some("write the password into it, and nothing else"))
    });
    let login = match (text(written.username.get()), password) {
        (Some(name), Some(file)) => Some((name, file)),
        (None, None) => None,
        _ => {
            let message = "`username` and `password_file` of `[mail]` belong together".to_owned();
            site.problems.at(&span, message, "write both, or neither".to_owned());
            return None;
        }
    };
    let port = written.port.get().map_or(default::MAIL_PORT, |port| port.0);
    Some(Mail {
        server,
        port: u16::try_from(port).unwrap_or(u16::MAX),
        tls: written.tls.get().copied().unwrap_or(default::MAIL_TLS),
        ca_file: written.ca_file.spanned().map(|path| site.path(&path.get_ref().0, path.span())),
        from,
        login,
    })
}

fn garbage(written: Option<&file::Garbage>) -> Garbage {
    Garbage {
        every: written.and_then(|garbage| Some(garbage.every.get()?.0)).unwrap_or(default::GARBAGE_EVERY),
        grace: written.and_then(|garbage| Some(garbage.grace.get()?.0)).unwrap_or(default::GARBAGE_GRACE),
        remote_unused: written.and_then(|garbage| Some(garbage.remote_unused.get()?.0)),
    }
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

fn storage(written: Option<&file::Storage>, site: &mut Site<'_, '_>) -> Option<Storage> {
    let default = written.and_then(|storage| storage.default.spanned());
    let bundles = written.and_then(|storage| storage.bundles.spanned());
    if let Some(redirect) = bundles.and_then(|own| own.get_ref().redirect.spanned()).filter(|told| *told.get_ref()) {
        let message = "`redirect` does nothing here: who asks for a bundle shows a key, which is not for a bucket";
        site.problems.warn(&redirect.span(), message, "leave it out");
    }
    // A class without a place of its own is where all are.
    let mut class = |own: Option<&Spanned<file::Place>>| match own {
        Some(own) => place(Some(own), default.is_some(), site),
        None => place(default, false, site),
    };
    let packages = class(written.and_then(|storage| storage.packages.spanned()));
    let bundles = class(bundles);
    Some(Storage { packages: packages?, bundles: bundles? })
}

/// `is_beside`: another one is the default, of which this one takes nothing over.
fn place(written: Option<&Spanned<file::Place>>, is_beside: bool, site: &mut Site<'_, '_>) -> Option<Place> {
    let Some(written) = written else {
        let path = site.path(Path::new(default::STORAGE_PATH), 0..0);
        return Some(Place { at: Where::Directory(path), encrypt: false });
    };
    let (span, written) = (written.span(), written.get_ref());
    let encrypt = written.encrypt.get().copied().unwrap_or(false);
    let at = match written.r#type.get().copied().unwrap_or(default::STORAGE_TYPE) {
        StorageType::Directory => {
            if let Some(bucket) = written.bucket.spanned().filter(|_| written.r#type.is_missing()) {
                let message = "a storage with a `bucket` is not of type `directory`";
                site.problems.at(&bucket.span(), message, "write `type = \"s3\"` too");
                return None;
            }
            Where::Directory(match written.path.spanned() {
                Some(path) => site.path(&path.get_ref().0, path.span()),
                None if is_beside => {
                    let message =
                        "this storage does not say where it is: it takes nothing over from `[storage.default]`";
                    site.problems.at(&span, message, "write its `path` too, or leave out the table");
                    return None;
                }
                None => site.path(Path::new(default::STORAGE_PATH), 0..0),
            })
        }
        StorageType::S3 => Where::S3(bucket(written, site)?),
    };
    Some(Place { at, encrypt })
}

fn bucket(written: &file::Place, site: &mut Site<'_, '_>) -> Option<S3> {
    let text = |key: Option<&PlainText>| key.map(|text| text.0.clone());
    let span = written.r#type.spanned().map(|kind| kind.span()).unwrap_or_default();
    let secret = written.secret_access_key_file.spanned().map(|path| {
        site.secret_file(&path.get_ref().0, path.span(), Some("write the secret access key into it, and nothing else"))
    });
    let credentials = match (text(written.access_key_id.get()), secret) {
        (Some(id), Some(file)) => Some((id, file)),
        (None, None) => None,
        _ => {
            let message = "`access_key_id` and `secret_access_key_file` belong together".to_owned();
            site.problems.at(&span, message, "write both, or neither".to_owned());
            return None;
        }
    };
    let Some(bucket) = text(written.bucket.get()) else {
        site.problems.at(
            &span,
            "a storage of type `s3` needs a bucket".to_owned(),
            "write `bucket = \"…\"`".to_owned(),
        );
        return None;
    };
    let endpoint = written.endpoint.get().map(|url| url.0.clone());
    Some(S3 {
        bucket,
        prefix: text(written.prefix.get()),
        region: text(written.region.get()).unwrap_or_else(|| default::S3_REGION.to_owned()),
        path_style: written.path_style.get().copied().unwrap_or(endpoint.is_some()),
        endpoint,
        credentials,
        redirect: written.redirect.get().copied().unwrap_or(false),
    })
}
