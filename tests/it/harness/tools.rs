//! Programs of others that tests use. One that is missing fails its test: a promise not looked at is not kept.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::{Output, patiently_for};

/// Longest run of a program: interpreters, installers and what makes large environments take their time on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// The checkout.
pub fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file beside the tests, such as `tests/clients/cookies.py`.
pub fn script(name: &str) -> String {
    top().join("tests/clients").join(name).to_str().unwrap().to_owned()
}

/// Where a program is: the checkout's own Python, or whatever the search path has.
pub fn tool(name: &str) -> PathBuf {
    let own = top().join(".venv/bin").join(name);
    let places = std::env::var_os("PATH").unwrap_or_default();
    let found = std::iter::once(own).chain(std::env::split_paths(&places).map(|p| p.join(name))).find(|p| p.is_file());
    found.unwrap_or_else(|| {
        panic!("this test needs `{name}`, which is not installed: run `make test`, which installs what tests need")
    })
}

/// Of a client that has a virtual environment of its own, see `.ci/setup`.
pub fn client(environment: &str, name: &str) -> PathBuf {
    let path = top().join(".venv-clients").join(environment).join("bin").join(name);
    assert!(path.is_file(), "this test needs `{}`: run `make test`, which installs what tests need", path.display());
    path
}

/// Node.js, with what it imports.
pub fn node() -> PathBuf {
    let _ = ["playwright-core", "tough-cookie"].map(package);
    tool("node")
}

/// The folder of an npm package.
pub fn package(name: &str) -> PathBuf {
    let folder = top().join("node_modules").join(name);
    assert!(
        folder.join("package.json").is_file(),
        "this test needs the npm package `{name}` in `node_modules`: run `make test`, which installs what tests need"
    );
    folder
}

/// Runs a program to its end, with this input.
pub async fn run(program: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let what = format!("{} {arguments:?}", program.display());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        // Who does not read its input closes it; then it ends in an answer of its own.
        let _ = stdin.write_all(input.as_bytes()).await;
    });
    let output = patiently_for(PATIENCE, &what, child.wait_with_output()).await.unwrap();
    Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
