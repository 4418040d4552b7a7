//! R libraries: one for each R and list of packages, made once on each node of what a repository of ours has.
//!
//! Each package is installed once for all, in a sandbox that reaches nothing and sees what the package says it needs. A
//! library is a folder in which its packages' files are linked (hard), so that it is whole by itself, whatever becomes of
//! the rest. What the repository does not have, but R on this machine has in the very version, is used as it is there: of that
//! the library has a symbolic link, which leads to the same place inside.

mod install;
mod installed;
mod plan;
mod source;

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use sha2::Digest;

use self::install::{Install, Needs};
use self::installed::Installed;
use self::plan::{Entry, From, Planned};
use self::source::{Ask, Source};
use super::copies::{self, Copy};
use super::interpreter::Interpreter;
use super::manifest::RPackage;
use crate::node::parts::Parts;
use crate::node::store::Language;
use crate::runtime::clock;
use crate::types::Sha256;

/// Where it is, as programs see it.
pub const AT: &str = "/library";
/// Packages that are fetched at once.
const AT_ONCE: usize = 4;
/// Packages that are named in one line.
const LINE_NAMES: usize = 20;
/// What R is made of: never a package by itself (R's `Priority: base`).
const BASE: &[&str] = &[
    "base",
    "compiler",
    "datasets",
    "graphics",
    "grDevices",
    "grid",
    "methods",
    "parallel",
    "splines",
    "stats",
    "stats4",
    "tcltk",
    "tools",
    "translations",
    "utils",
];

/// What a library is made of.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Which R.
    pub interpreter: &'a Interpreter,
    /// What is to be in it.
    pub packages: &'a [RPackage],
}

/// As metrics call it.
const LANGUAGE: &str = "r";
/// What R reads in the place of this machine's `Renviron.site`, in a folder that R sees (R's `help(Startup)`).
const ENVIRON: &str = ".Renviron";

/// What R is told, so that it finds the library, then its own packages, and nothing else.
pub fn variables() -> Vec<(&'static str, String)> {
    told(AT, AT).to_vec()
}

/// For these libraries, with what it reads in this folder.
fn told(libraries: &str, folder: &str) -> [(&'static str, String); 4] {
    let environ = ("R_ENVIRON", format!("{folder}/{ENVIRON}"));
    let [own, site, user] = ["R_LIBS", "R_LIBS_SITE", "R_LIBS_USER"].map(|name| (name, libraries.to_owned()));
    [own, site, user, environ]
}

/// What an administrator set for R, but where it looks for packages: Debian's sets that whatever the environment says.
fn environ(site: &str, libraries: &str) -> String {
    format!("{site}\nR_LIBS_SITE={libraries}\n")
}

/// The folder that is [`AT`] for who needs this library; `None`: there is no repository to make it of, or nothing is listed,
/// and what R has on this machine will do. `say`: what is said while it is made.
///
/// # Errors
/// Why it cannot be made, in a sentence.
pub async fn library(
    parts: &Parts,
    wanted: Wanted<'_>,
    say: &(dyn Fn(&str) + Sync),
) -> Result<Option<PathBuf>, String> {
    let Some(repository) = repository(parts)? else { return Ok(None) };
    let listed: Vec<&RPackage> =
        wanted.packages.iter().filter(|package| !BASE.contains(&package.name.as_str())).collect();
    if listed.is_empty() {
        return Ok(None);
    }
    let Interpreter { program, version, platform, .. } = wanted.interpreter;
    let system = source::system().await;
    let site = Path::new(program).ancestors().nth(2).unwrap_or(Path::new("/")).join("etc/Renviron.site");
    let site = tokio::fs::read_to_string(site).await.unwrap_or_default();
    let mut key = sha2::Sha256::new_with_prefix(b"bowline library 1\0");
    for part in [program, version, platform, &system.id, &site, &repository] {
        key.update(part.as_bytes());
        key.update(b"\0");
    }
    // What is there may be another version tomorrow: then it is another library.
    let there = installed(parts, wanted.interpreter, &listed).await?;
    for package in &listed {
        let version = package.version.as_deref().ok_or_else(|| {
            format!(
                "the manifest lists the package `{}` without its version: write it anew, with rsconnect::writeManifest()",
                package.name
            )
        })?;
        let built = there.get(&package.name).map(|found| found.built.as_str()).unwrap_or_default();
        for part in [&package.name, version, built] {
            key.update(part.as_bytes());
            key.update(b"\0");
        }
    }
    let name = Sha256::new(key.finalize().into()).to_string();
    let making = match parts.contents.libraries.get(&name).await? {
        Copy::There(path) => {
            parts.metrics.environment_hit(LANGUAGE);
            return Ok(Some(path));
        }
        Copy::Missing(making) => making,
    };
    let began = clock::now();
    say(&format!(
        "Making the R library with R {version}: {} packages, from the repository `{repository}`",
        listed.len()
    ));
    let make =
        Make { parts, interpreter: wanted.interpreter, repository: &repository, system: &system, site: &site, say };
    let made = make.make(&listed, there, making.folder());
    let made = tokio::time::timeout(parts.settings.content.environment_timeout, Box::pin(made)).await;
    let made = made
        .map_err(|_| "the R library took too long to make (`content.environment_timeout`)".to_owned())
        .and_then(|made| made);
    parts.metrics.environment(LANGUAGE, made.is_ok(), began.elapsed());
    made?;
    making.done().map(Some)
}

/// Name of the repository libraries are made of.
fn repository(parts: &Parts) -> Result<Option<String>, String> {
    let Some(name) = &parts.settings.content.cran else { return Ok(parts.catalog.first(Language::R)) };
    let all = parts.catalog.all();
    match all.iter().any(|repository| repository.language == Language::R && repository.name == *name) {
        true => Ok(Some(name.clone())),
        false => Err(format!(
            "there is no repository `{name}` of R packages, which `content.cran` names: `bowline repo create {name} --type cran` makes it"
        )),
    }
}

/// Those of these packages that R on this machine has in the version that is wanted.
async fn installed(
    parts: &Parts,
    interpreter: &Interpreter,
    listed: &[&RPackage],
) -> Result<HashMap<String, Installed>, String> {
    // Only what is seen inside as well.
    let mut seen = vec![PathBuf::from("/usr")];
    seen.extend(interpreter.root.clone());
    seen.extend(parts.settings.content.readable.iter().cloned());
    let is_seen = |library: &&PathBuf| seen.iter().any(|folder| library.starts_with(folder));
    let libraries: Vec<PathBuf> = interpreter.libraries.iter().filter(is_seen).cloned().collect();
    let listed: Vec<RPackage> = listed.iter().map(|package| (*package).clone()).collect();
    let looked = tokio::task::spawn_blocking(move || {
        let found = listed.into_iter().filter_map(|package| {
            let found = installed::find(&libraries, &package.name)?;
            (Some(&found.version) == package.version.as_ref()).then_some((package.name, found))
        });
        found.collect()
    });
    looked.await.map_err(|e| e.to_string())
}

/// What a library is made with.
struct Make<'a> {
    parts: &'a Parts,
    interpreter: &'a Interpreter,
    repository: &'a str,
    system: &'a source::System,
    /// The administrator's `Renviron.site`.
    site: &'a str,
    say: &'a (dyn Fn(&str) + Sync),
}

impl Make<'_> {
    async fn make(
        &self,
        listed: &[&RPackage],
        mut there: HashMap<String, Installed>,
        folder: &Path,
    ) -> Result<(), String> {
        let told = |e: std::io::Error| format!("the R library cannot be made: {e}");
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).map_err(told)?;
        install::write(&folder.join(ENVIRON), &environ(self.site, AT)).map_err(told)?;
        let scratch = self.parts.spool.scratch().map_err(told)?;
        let mut entries = Vec::new();
        let mut files = HashMap::new();
        let (mut used, mut missing) = (Vec::new(), Vec::new());
        for (package, source) in listed.iter().zip(self.fetch(listed, scratch.path()).await?) {
            let named = format!("{} {}", package.name, package.version.as_deref().unwrap_or_default());
            let (from, needs) = match (source, there.remove(&package.name)) {
                (Some(source), _) => {
                    files.insert(package.name.clone(), source.path);
                    (From::Source(source.digest), source.needs)
                }
                (None, Some(Installed { path, built, needs, .. })) => {
                    used.push(named);
                    (From::System { path, built }, needs)
                }
                (None, None) => {
                    missing.push(named);
                    continue;
                }
            };
            let version = package.version.clone().unwrap_or_default();
            entries.push(Entry { name: package.name.clone(), version, from, needs });
        }
        self.refuse(&missing)?;
        for some in used.chunks(LINE_NAMES) {
            let repository = self.repository;
            (self.say)(&format!("Not in the repository `{repository}`, so as installed here: {}", some.join(", ")));
        }
        let own = self.own(&entries).await?;
        let base = self.base();
        let planned = tokio::task::spawn_blocking(move || plan::plan(entries, &base, &own));
        let plan = planned.await.map_err(|e| e.to_string())??;
        let (mut total, mut cached) = (0, 0);
        // Those that are there by now, by their places, and until the last one is: who needs them sees them.
        let (mut there, mut held) = (HashMap::new(), Vec::new());
        for (at, planned) in plan.iter().enumerate() {
            let entry = &planned.entry;
            if let From::System { path, .. } = &entry.from {
                symlink(path, folder.join(&entry.name)).map_err(told)?;
                continue;
            }
            let tarball = files.get(&entry.name).ok_or("a package was lost")?;
            let mut needs = Needs::default();
            for need in &planned.needs {
                match (&plan[*need].entry.from, there.get(need)) {
                    (From::System { path, .. }, _) => needs.links.push(path.clone()),
                    (From::Source(_), found) => needs.libraries.extend(found.cloned()),
                }
            }
            let (package, was_there) = self.package(planned, &needs, tarball, scratch.path(), total).await?;
            cached += usize::from(was_there);
            held.push(self.parts.contents.packages.hold(&package));
            there.insert(at, package.clone());
            let (from, to) = (package.join(&entry.name), folder.join(&entry.name));
            let linked = tokio::task::spawn_blocking(move || {
                let bytes = copies::size(&from);
                install::link(&from, &to).map(|()| bytes)
            });
            total += linked.await.map_err(|e| e.to_string())?.map_err(told)?;
        }
        if cached > 0 {
            (self.say)(&format!("{cached} of {} packages were installed before", files.len()));
        }
        Ok(())
    }

    /// Each package's file, in the order they are listed; `None`: the repository does not have it.
    async fn fetch(&self, listed: &[&RPackage], scratch: &Path) -> Result<Vec<Option<Source>>, String> {
        let folder = scratch.join("source");
        std::fs::create_dir(&folder).map_err(|e| e.to_string())?;
        let agent = source::agent(self.interpreter);
        let mut left = self.parts.settings.content.environment_bytes_max;
        let mut asked = Vec::new();
        for package in listed {
            asked.push(source::fetch(Ask {
                parts: self.parts.clone(),
                repository: self.repository.to_owned(),
                codename: self.system.codename.clone(),
                agent: agent.clone(),
                name: package.name.clone(),
                version: package.version.clone().unwrap_or_default(),
                folder: folder.clone(),
            }));
        }
        let mut fetched = futures_util::stream::iter(asked).buffered(AT_ONCE);
        let mut all = Vec::new();
        while let Some(source) = fetched.next().await {
            let source = source?;
            let bytes = source.as_ref().map_or(0, |source| source.bytes);
            left = left.checked_sub(bytes).ok_or_else(|| self.too_large())?;
            all.push(source);
        }
        Ok(all)
    }

    fn too_large(&self) -> String {
        let bound = self.parts.settings.content.environment_bytes_max;
        format!("the R library has more than {bound} bytes (`content.environment_bytes_max`)")
    }

    /// # Errors
    /// Which packages there are not, and what to do.
    fn refuse(&self, missing: &[String]) -> Result<(), String> {
        if missing.is_empty() {
            return Ok(());
        }
        let first = missing.iter().take(LINE_NAMES).map(|one| format!("`{one}`")).collect::<Vec<_>>().join(", ");
        let more = if missing.len() > LINE_NAMES { ", …" } else { "" };
        let (repository, version) = (self.repository, &self.interpreter.version);
        Err(format!(
            "these R packages are neither in the repository `{repository}` nor, in that version, installed with R {version} \
             on this node: {first}{more}; publish them there, let it show an index that has them (`bowline source create \
             --url`), publish again with versions it has, or with `envManagementR = FALSE` to use what is installed"
        ))
    }

    /// What of R's own packages those that are listed need beside each other: versions by name.
    async fn own(&self, entries: &[Entry]) -> Result<HashMap<String, String>, String> {
        let listed: HashSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        let needed = entries.iter().flat_map(|entry| &entry.needs).filter(|name| !listed.contains(name.as_str()));
        let needed: HashSet<String> = needed.cloned().collect();
        let library = self.interpreter.libraries.first().cloned();
        let looked = tokio::task::spawn_blocking(move || {
            let libraries: Vec<PathBuf> = library.into_iter().collect();
            let found = needed.into_iter().filter_map(|name| {
                let version = installed::find(&libraries, &name).map(|found| found.version)?;
                Some((name, version))
            });
            found.collect()
        });
        looked.await.map_err(|e| e.to_string())
    }

    /// What all that is installed has in common.
    fn base(&self) -> String {
        let Interpreter { program, version, platform, .. } = self.interpreter;
        [program, version, platform, &self.system.id].map(String::as_str).join("\0")
    }

    /// The folder with an installed package, and whether it was there before. `total`: bytes that are in the library already.
    async fn package(
        &self,
        planned: &Planned,
        needs: &Needs,
        tarball: &Path,
        scratch: &Path,
        total: u64,
    ) -> Result<(PathBuf, bool), String> {
        let Entry { name, version, .. } = &planned.entry;
        let making = match self.parts.contents.packages.get(&planned.key).await? {
            Copy::There(path) => return Ok((path, true)),
            Copy::Missing(making) => making,
        };
        (self.say)(&format!("Installing {name} {version}"));
        let bound = self.parts.settings.content.environment_bytes_max;
        let bytes_max = bound.checked_sub(total).ok_or_else(|| self.too_large())?;
        let (interpreter, site) = (self.interpreter, self.site);
        let install = Install { interpreter, site, tarball, needs, scratch, bytes_max };
        let done = install.run(self.parts, making.folder(), self.say).await;
        done.map_err(|why| format!("the R package `{name} {version}` cannot be installed: {why}"))?;
        // What it made is not believed: a link in its place leads elsewhere.
        let package = making.folder().join(name);
        let is_made = std::fs::symlink_metadata(&package).is_ok_and(|of| of.is_dir())
            && std::fs::symlink_metadata(package.join("DESCRIPTION")).is_ok_and(|of| of.is_file());
        if !is_made {
            return Err(format!("R has not installed the package `{name} {version}`; the lines above may say why"));
        }
        Ok((making.done()?, false))
    }
}
