//! What the demo's Python content requires: fetched once by the Python of the demo, from where that is configured to fetch
//! from, and published to the demo's own repository.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// Names a folder that has them already.
pub(super) const VARIABLE: &str = "BOWLINE_DEMO_WHEELS";
/// What is fetched, with all it requires.
const WANTED: [&str; 6] = ["shiny", "fastapi", "uvicorn", "websockets", "nbconvert", "ipykernel"];
/// For all of it.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Is there once all of it is.
const DONE: &str = "downloaded";

/// The wheels: of the named folder, else fetched into this one.
///
/// # Errors
/// Why there are none, in a sentence.
pub(super) async fn all(python: &Path, named: Option<&Path>, folder: &Path) -> Result<Vec<PathBuf>, String> {
    if let Some(named) = named {
        return list(named);
    }
    if !folder.join(DONE).exists() {
        let mut command = Command::new(python);
        command.args(["-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--only-binary=:all:", "-d"]);
        command.arg(folder).args(WANTED).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let run = command.kill_on_drop(true).output();
        let output = tokio::time::timeout(TIMEOUT, run).await.map_err(|_| "pip takes too long".to_owned())?;
        let output = output.map_err(|e| e.to_string())?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            return Err(words.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("pip failed").to_owned());
        }
        std::fs::write(folder.join(DONE), "").map_err(|e| e.to_string())?;
    }
    list(folder)
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let told = |e: std::io::Error| format!("{}: {e}", folder.display());
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(told)? {
        let path = entry.map_err(told)?.path();
        if path.extension().is_some_and(|ending| ending == "whl") {
            all.push(path);
        }
    }
    all.sort();
    if all.is_empty() { Err(format!("there are no wheels in {}", folder.display())) } else { Ok(all) }
}
