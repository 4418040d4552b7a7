//! Which versions of Python, R, Quarto and Node.js this machine has.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::config::node::Content;
use crate::node::sandbox::Folder;

/// For an interpreter to say its version.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program that runs content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    /// How it is called.
    pub program: String,
    /// `3.11.7`.
    pub version: String,
    /// Where it is, if that is not below `/usr`.
    pub root: Option<PathBuf>,
    /// What machine it is for, as R says: `x86_64-pc-linux-gnu`; empty: it does not.
    pub platform: String,
    /// Where R finds packages, its own ones first.
    pub libraries: Vec<PathBuf>,
}

impl Interpreter {
    /// What a sandbox has to show of it.
    pub fn folder(&self) -> Option<Folder> {
        self.root.clone().map(|root| Folder { from: root.clone(), to: root, is_writable: false })
    }
}

/// Those of this machine, looked up once.
#[derive(Debug)]
pub struct Interpreters {
    python_programs: Vec<String>,
    r_programs: Vec<String>,
    quarto_program: String,
    nodejs_program: String,
    python: OnceCell<Vec<Interpreter>>,
    r: OnceCell<Vec<Interpreter>>,
    quarto: OnceCell<Option<Interpreter>>,
    nodejs: OnceCell<Option<Interpreter>>,
}

impl Interpreters {
    /// As configured.
    pub fn new(settings: &Content) -> Self {
        Self {
            python_programs: settings.python.clone(),
            r_programs: settings.r.clone(),
            quarto_program: settings.quarto.clone(),
            nodejs_program: settings.nodejs.clone(),
            python: OnceCell::new(),
            r: OnceCell::new(),
            quarto: OnceCell::new(),
            nodejs: OnceCell::new(),
        }
    }

    /// Python's, in the order they are configured.
    pub async fn python(&self) -> &[Interpreter] {
        let arguments = [
            "-I",
            "-c",
            "import platform, sys; print(platform.python_version()); print(sys.executable); print(sys.base_prefix)",
        ];
        self.python.get_or_init(|| all(&self.python_programs, &arguments)).await
    }

    /// R's.
    pub async fn r(&self) -> &[Interpreter] {
        let arguments = [
            "--vanilla",
            "--slave",
            "-e",
            "cat(as.character(getRversion()), file.path(R.home('bin'), 'R'), R.home(), R.version$platform, \
             unique(normalizePath(c(.Library, .libPaths()))), sep = '\\n')",
        ];
        self.r.get_or_init(|| all(&self.r_programs, &arguments)).await
    }

    /// Quarto, which is one folder with everything in it.
    pub async fn quarto(&self) -> Option<&Interpreter> {
        self.quarto.get_or_init(|| one(&self.quarto_program)).await.as_ref()
    }

    /// Node.js, which is one folder with everything in it, too.
    pub async fn nodejs(&self) -> Option<&Interpreter> {
        self.nodejs.get_or_init(|| one(&self.nodejs_program)).await.as_ref()
    }
}

/// A program that says its version, in a folder above its own.
async fn one(program: &str) -> Option<Interpreter> {
    let program = find(program)?;
    let said = Command::new(&program).arg("--version").stdin(Stdio::null()).kill_on_drop(true).output();
    let said = tokio::time::timeout(PATIENCE, said).await.ok()?.ok()?;
    let version = String::from_utf8_lossy(&said.stdout).trim().trim_start_matches('v').to_owned();
    let root = program.parent()?.parent()?.to_owned();
    let root = (!root.starts_with("/usr") && root.components().count() > 1).then_some(root);
    let is_one = said.status.success() && version.starts_with(|c: char| c.is_ascii_digit());
    let program = program.display().to_string();
    is_one.then(|| Interpreter { program, version, root, platform: String::new(), libraries: Vec::new() })
}

/// A program on the path, where it really is.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::env::split_paths(&path).map(|folder| folder.join(program));
    all.filter(|path| path.is_file()).find_map(|path| path.canonicalize().ok())
}

async fn all(programs: &[String], arguments: &[&str]) -> Vec<Interpreter> {
    let mut found = Vec::new();
    for program in programs {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let said = match tokio::time::timeout(PATIENCE, command.output()).await {
            Ok(Ok(output)) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
            _ => {
                tracing::info!(program, "this interpreter is not here; content that needs it runs on other nodes");
                continue;
            }
        };
        let mut lines = said.lines().map(str::trim);
        if let Some(version) = lines.next().filter(|version| !version.is_empty()) {
            let program = lines.next().filter(|path| path.starts_with('/')).unwrap_or(program);
            let root =
                lines.next().filter(|path| path.starts_with('/') && !path.starts_with("/usr/") && *path != "/usr");
            let root = root.map(PathBuf::from).filter(|path| path.components().count() > 2);
            found.push(Interpreter {
                program: program.to_owned(),
                version: version.to_owned(),
                root,
                platform: lines.next().unwrap_or_default().to_owned(),
                libraries: lines.filter(|path| path.starts_with('/')).map(PathBuf::from).collect(),
            });
        }
    }
    found
}

/// The one nearest to a version: the same minor one, else the next later one, else the latest.
pub fn nearest<'a>(all: &'a [Interpreter], wanted: Option<&str>) -> Option<&'a Interpreter> {
    let key = |version: &str| {
        let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    };
    let Some(wanted) = wanted.map(key) else { return all.first() };
    let same = all.iter().find(|found| key(&found.version) == wanted);
    let later = all.iter().filter(|found| key(&found.version) > wanted).min_by_key(|found| key(&found.version));
    same.or(later).or_else(|| all.iter().max_by_key(|found| key(&found.version)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_version_is_chosen() {
        let all = ["3.11.7", "3.9.2", "3.13.1"].map(|version| Interpreter {
            program: version.into(),
            version: version.into(),
            root: None,
            platform: String::new(),
            libraries: Vec::new(),
        });
        for (wanted, chosen) in [
            (Some("3.9.1"), "3.9.2"),
            (Some("3.12.0"), "3.13.1"),
            (Some("3.14.0"), "3.13.1"),
            (Some("2.7"), "3.9.2"),
            (None, "3.11.7"),
        ] {
            assert_eq!(nearest(&all, wanted).unwrap().version, chosen, "{wanted:?}");
        }
        assert!(nearest(&[], Some("3.9")).is_none());
    }
}
