//! The Shiny apps of the demo, and the interpreters that run them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// A Shiny app that comes with Bowline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum App {
    /// Shiny for Python.
    Python,
    /// Shiny for R.
    R,
}

/// All of them.
pub(super) const ALL: [App; 2] = [App::Python, App::R];

/// Why an interpreter cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum InterpreterError {
    /// None of those tried.
    #[error(
        "no Python with the `shiny` package was found (tried {}): run `make demo`, which makes one, or give one by \
         `--python PATH`", .0.join(", ")
    )]
    NoPython(Vec<String>),
    /// It is there but does not do.
    #[error("`{0}` cannot run Shiny apps: {1}")]
    Unfit(String, String),
}

/// To load an interpreter and its `shiny` on a cold disk.
const CHECK_TIMEOUT: Duration = Duration::from_secs(60);
/// Names a Python to use, unless `--python` does.
pub(super) const PYTHON_VARIABLE: &str = "BOWLINE_DEMO_PYTHON";

impl App {
    /// Its name: of its content, its pool, its folder.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Python => "shiny-python",
            Self::R => "shiny-r",
        }
    }

    /// What names of its processes begin with.
    pub(super) fn short_name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::R => "r",
        }
    }

    /// What the file is called.
    pub(super) fn file_name(self) -> &'static str {
        match self {
            Self::Python => "app.py",
            Self::R => "app.R",
        }
    }

    /// The program text.
    pub(super) fn source(self) -> &'static str {
        match self {
            Self::Python => include_str!("apps/shiny-python/app.py"),
            Self::R => include_str!("apps/shiny-r/app.R"),
        }
    }

    /// The command that serves it on a port of 127.0.0.1, when run in the folder of its file.
    pub(super) fn command(self, interpreter: &Path, port: u16) -> Vec<OsString> {
        let mut command = vec![interpreter.as_os_str().to_owned()];
        match self {
            // Errors and warnings only: a line for each request would let the log grow without end.
            Self::Python => command.extend(
                ["-m", "shiny", "run", "--no-dev-mode", "--log-level", "warning", "--host", "127.0.0.1", "--port"]
                    .map(OsString::from)
                    .into_iter()
                    .chain([port.to_string().into(), self.file_name().into()]),
            ),
            Self::R => command.extend([
                "-e".into(),
                format!("shiny::runApp('.', host = '127.0.0.1', port = {port}L, launch.browser = FALSE, quiet = TRUE)")
                    .into(),
            ]),
        }
        command
    }
}

/// A Python that can import shiny: the chosen one if one is chosen, else `.venv` here, else `python3`.
///
/// # Errors
/// When the chosen one cannot, or none can.
pub(super) async fn python(chosen: Option<PathBuf>) -> Result<PathBuf, InterpreterError> {
    if let Some(path) = chosen {
        return match check_python(&path).await {
            Ok(()) => Ok(absolute(path)),
            Err(why) => Err(InterpreterError::Unfit(path.display().to_string(), why)),
        };
    }
    let mut tried = Vec::new();
    for path in [".venv/bin/python", "python3"].map(PathBuf::from) {
        if check_python(&path).await.is_ok() {
            return Ok(absolute(path));
        }
        tried.push(format!("`{}`", path.display()));
    }
    Err(InterpreterError::NoPython(tried))
}

/// R, when it has shiny.
///
/// # Errors
/// When there is no R, or it has no shiny.
pub(super) async fn r() -> Result<PathBuf, InterpreterError> {
    let path = PathBuf::from("Rscript");
    match check(&path, &["-e", "library(shiny)"]).await {
        Ok(()) => Ok(path),
        Err(why) => Err(InterpreterError::Unfit("Rscript".to_owned(), why)),
    }
}

/// Naming `App` tells the package from any folder called `shiny`, which Python would import too.
async fn check_python(path: &Path) -> Result<(), String> {
    check(&absolute(path.to_owned()), &["-c", "from shiny import App"]).await
}

/// A path with a slash in it, made independent of the working directory. Links stay: a virtual environment's Python
/// is one, and knows where it belongs by its path.
fn absolute(path: PathBuf) -> PathBuf {
    if path.components().count() > 1 { std::path::absolute(&path).unwrap_or(path) } else { path }
}

/// Runs something that ends well when all is there. The error is its last words.
async fn check(program: &Path, arguments: &[&str]) -> Result<(), String> {
    let run = Command::new(program)
        .args(arguments)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    let output = match tokio::time::timeout(CHECK_TIMEOUT, run).await {
        Err(_) => return Err(format!("no answer within {} s", CHECK_TIMEOUT.as_secs())),
        Ok(Err(error)) => return Err(error.to_string()),
        Ok(Ok(output)) => output,
    };
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    // R ends with "Execution halted", which says nothing.
    let telling = words.lines().map(str::trim).rfind(|line| !line.is_empty() && *line != "Execution halted");
    Err(telling.map_or_else(|| output.status.to_string(), str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(folder: &Path, script: &str) -> PathBuf {
        let path = folder.join("python");
        crate::cli::demo::write_script(&path, &format!("#!/bin/sh\n{script}\n"));
        path
    }

    #[tokio::test]
    async fn a_chosen_python_without_shiny_is_refused_with_its_own_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = fake(folder.path(), "echo 'Traceback:' >&2; echo 'No module named shiny' >&2; exit 1");
        let error = python(Some(path.clone())).await.unwrap_err().to_string();
        assert_eq!(error, format!("`{}` cannot run Shiny apps: No module named shiny", path.display()));
    }

    #[tokio::test]
    async fn a_chosen_python_that_is_not_there_is_refused() {
        let error = python(Some("/nowhere/python".into())).await.unwrap_err().to_string();
        assert!(error.contains("/nowhere/python") && error.contains("No such file"), "{error}");
    }

    #[tokio::test]
    async fn a_chosen_python_with_shiny_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = fake(folder.path(), "test \"$2\" = 'from shiny import App'");
        assert_eq!(python(Some(path.clone())).await.unwrap(), path);
    }

    #[test]
    fn a_bare_name_stays_one_and_a_relative_path_does_not() {
        assert_eq!(absolute("python3".into()), PathBuf::from("python3"));
        assert!(absolute(".venv/bin/python".into()).is_absolute());
    }

    #[test]
    fn both_apps_have_the_ids_others_rely_on() {
        for app in ALL {
            for id in ["n", "name", "file", "greeting", "served_by", "upload_info", "data"] {
                assert!(app.source().contains(&format!("\"{id}\"")), "{} lacks {id}", app.name());
            }
        }
    }
}
