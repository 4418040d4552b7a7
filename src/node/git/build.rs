//! From a commit to packages: fetched, built in a sandbox, looked at as any upload, published.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::program::{self, Ref};
use super::{Wanted, sync};
use crate::node::blob::{Spool, Spooled};
use crate::node::jobs::{Ended, Log};
use crate::node::parts::Parts;
use crate::node::publish::{self, Ended as Published, Target};
use crate::node::sandbox::{Account, Bounds, Door, INDEX, Memory, Run};
use crate::node::store::{Language, Source};
use crate::node::{cran, pypi, router};

/// Bytes of a file's name.
const NAME_MAX: u64 = 4096;
/// Packages of one build.
const FILES_MAX: usize = 20;

/// `$folder`: where the package is. Only what is in `/work/out` comes out.
const PYTHON: &str = "set -e; mkdir src out; tar -xf - -C src; cd \"src/$folder\"; \
     \"$python\" -m build $isolation --outdir /work/out . >&2; exec tar --format=gnu -cf - -C /work/out .";
const R: &str = "set -e; mkdir src out; tar -xf - -C src; cd out; \
     \"$r\" CMD build --no-manual --no-build-vignettes \"/work/src/$folder\" >&2; exec tar --format=gnu -cf - -C /work/out .";

/// Does the job: a commit of a source.
pub async fn build(parts: &Parts, log: &Log, input: &str) -> Ended {
    let wanted: Wanted = serde_json::from_str(input).map_err(|e| e.to_string())?;
    let source = sync::source(parts, wanted.source).await?;
    let settings = sync::settings(&source)?;
    let language = Language::parse(&source.language).ok_or("its packages are of an unknown language")?;
    let told = |e: std::io::Error| e.to_string();
    let scratch = parts.spool.scratch().map_err(told)?;
    let (repository, tar) = (scratch.path().join("git"), scratch.path().join("source.tar"));
    log.say(&format!("{}: {} at {}", settings.url, wanted.short(), wanted.commit));
    let at = Ref { name: wanted.name.clone(), commit: wanted.commit.clone() };
    let time = program::archive(&settings.url, &at, &repository, &tar, parts.settings.builder.disk_max).await?;

    let builder = &parts.settings.builder;
    let index = index(parts, &source, language);
    let door = match &index {
        Some(repository) => Some(Door::open(router::router(parts.clone()), repository, builder.uid).map_err(told)?),
        None => None,
    };
    let mut environment = vec![
        ("folder", settings.folder.clone().unwrap_or_else(|| ".".to_owned())),
        ("SOURCE_DATE_EPOCH", time.to_string()),
    ];
    match language {
        Language::Python => {
            environment.push(("python", builder.python.clone()));
            environment.push(("PIP_DISABLE_PIP_VERSION_CHECK", "1".to_owned()));
            environment.push(("PIP_NO_CACHE_DIR", "1".to_owned()));
            environment.push(("PIP_TIMEOUT", "30".to_owned()));
            match &index {
                Some(repository) => {
                    environment.push(("PIP_INDEX_URL", format!("{INDEX}/packages/{repository}/simple/")))
                }
                None => environment.push(("isolation", "--no-isolation".to_owned())),
            }
            // What asks git for the version finds no git here.
            if wanted.name.starts_with("refs/tags/")
                && let Some(version) = version(wanted.short())
            {
                environment.push(("SETUPTOOLS_SCM_PRETEND_VERSION", version));
            }
        }
        Language::R => {
            environment.push(("r", builder.r.clone()));
            if let Some(repository) = &index {
                // R reads it as it reads ~/.Rprofile.
                let profile = format!("options(repos = c(CRAN = '{INDEX}/packages/{repository}/latest'))\n");
                environment.push(("profile", profile));
            }
        }
    }
    let script = match (language, index.is_some()) {
        (Language::Python, _) => PYTHON.to_owned(),
        (Language::R, false) => R.to_owned(),
        (Language::R, true) => format!("printf %s \"$profile\" > /work/.Rprofile; {R}"),
    };
    let run = Run {
        script: &script,
        environment: environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        readable: &builder.readable,
        folders: Vec::new(),
        account: Account::numbered(builder.uid),
        door: door.as_ref(),
        outbound: None,
        bounds: Bounds {
            time: builder.timeout,
            memory: Memory::Addresses(builder.memory_max),
            cpu: None,
            disk: builder.disk_max,
        },
    };
    let input = File::open(&tar).map_err(told)?;
    let built = run.run(input, &parts.spool, |line| log.say(line)).await?;
    drop(door);
    let spool = parts.spool.clone();
    let bytes_max = parts.settings.packages.file_bytes_max;
    let files =
        tokio::task::spawn_blocking(move || unpack(built.path(), &spool, bytes_max).map(|files| (files, built)));
    let (files, _built) = files.await.map_err(|e| e.to_string())??;
    publish_all(parts, log, &source, language, &wanted, files).await
}

/// Where a build's own requirements come from: as configured, else the first repository that shows what is built.
fn index(parts: &Parts, source: &Source, language: Language) -> Option<String> {
    let builder = &parts.settings.builder;
    let told = match language {
        Language::Python => builder.pypi.clone(),
        Language::R => builder.cran.clone(),
    };
    told.or_else(|| parts.catalog.showing(source.id))
}

/// `1.0` of `v1.0`; `None`: it is no version.
fn version(tag: &str) -> Option<String> {
    let tag = tag.rsplit('/').next().unwrap_or(tag);
    let text = tag.strip_prefix(['v', 'V']).unwrap_or(tag);
    text.parse::<pep440_rs::Version>().ok().map(|version| version.to_string())
}

/// The files that came out, each by itself. Blocks.
fn unpack(tar: &Path, spool: &Spool, bytes_max: u64) -> Result<Vec<(String, Spooled)>, String> {
    let told = |e: std::io::Error| format!("what was built cannot be read: {e}");
    let strange = || "the build made something that is no package".to_owned();
    let mut archive = tar::Archive::new(File::open(tar).map_err(told)?);
    let mut files = Vec::new();
    // What was built may have written this itself, so long names are read here, not by a library that believes their length.
    let mut long: Option<Vec<u8>> = None;
    for entry in archive.entries().map_err(told)?.raw(true) {
        let mut entry = entry.map_err(told)?;
        let kind = entry.header().entry_type();
        if kind.is_gnu_longname() {
            if entry.size() > NAME_MAX {
                return Err(strange());
            }
            let mut name = Vec::new();
            entry.read_to_end(&mut name).map_err(told)?;
            long = Some(name);
            continue;
        }
        let name = long.take().unwrap_or_else(|| entry.header().path_bytes().into_owned());
        if kind.is_dir() {
            continue;
        }
        let name = String::from_utf8(name).map_err(|_| strange())?;
        let name = name.trim_end_matches('\0').trim_start_matches("./").to_owned();
        if !kind.is_file() || name.contains('/') || name.chars().any(char::is_control) {
            return Err(strange());
        }
        if entry.size() > bytes_max {
            return Err(format!("{name} is larger than the {bytes_max} bytes this server takes"));
        }
        if files.len() >= FILES_MAX {
            return Err(format!("the build made more than {FILES_MAX} packages"));
        }
        let mut spooling = spool.begin().map_err(told)?;
        std::io::copy(&mut entry, &mut spooling).map_err(told)?;
        files.push((name, spooling.finish().map_err(told)?));
    }
    if files.is_empty() { Err("the build made no package".to_owned()) } else { Ok(files) }
}

async fn publish_all(
    parts: &Parts,
    log: &Log,
    source: &Source,
    language: Language,
    wanted: &Wanted,
    files: Vec<(String, Spooled)>,
) -> Ended {
    let target = Target {
        place: source.name.clone(),
        language,
        source: source.id,
        who: format!("git {}", wanted.short()),
        address: None,
    };
    let (mut new, mut taken) = (Vec::new(), Vec::new());
    for (name, spooled) in files {
        let prepared = match language {
            Language::Python => pypi::alone(&name, spooled).await,
            Language::R => cran::prepare(&name, spooled, None).await,
        };
        let prepared = prepared.map_err(|failure| format!("{name}: {}", failure.message()))?;
        let published = publish::publish(parts, &target, prepared).await;
        match published.map_err(|failure| format!("{name}: {}", failure.message()))? {
            Published::New => {
                log.say(&format!("published: {name}"));
                new.push(name);
            }
            Published::Same | Published::Conflict(_) => {
                log.say(&format!("{name} is published already; a new version has to say so"));
                taken.push(name);
            }
        }
    }
    match (new.as_slice(), wanted.name.starts_with("refs/heads/")) {
        ([], true) => Ok(format!("nothing new: {} was published before", taken.join(", "))),
        ([], false) => Err(format!("{} was published before, from something else", taken.join(", "))),
        _ => Ok(format!("published {}", new.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_tell_versions() {
        for (tag, told) in
            [("v1.0", Some("1.0")), ("1.2.3rc1", Some("1.2.3rc1")), ("pkg/v2", Some("2")), ("nightly", None)]
        {
            assert_eq!(version(tag).as_deref(), told, "{tag}");
        }
    }
}
