//! `bowline check FILE…`: everything that is wrong with configurations, without starting anything.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::EX_CONFIG;
use crate::config;
use crate::config::proxy::Settings;
use crate::config::report::{Problem, Report};
use crate::config::schema::Role;

/// Check configuration files and tell every problem
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The configuration files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Checks every file and prints what is wrong, to standard output. Exit code 0, also with warnings, or 78.
///
/// `extra` looks into the files that a proxy's settings name; see [`config::load_with`].
pub fn run(args: Args, extra: fn(&Settings) -> Vec<Problem>) -> ExitCode {
    let Args { files, json } = args;
    let checked = Checked::new(files, extra);
    let text = if json { format!("{}\n", serde_json::json!(checked)) } else { checked.for_people() };
    // Whoever closed our output does not want to read it; what was found still decides the exit code.
    let _ = io::stdout().write_all(text.as_bytes());
    if checked.ok { ExitCode::SUCCESS } else { ExitCode::from(EX_CONFIG) }
}

/// `{"ok", "files": [{"file", "ok", "problems": […]}]}`.
#[derive(Debug, Serialize)]
struct Checked {
    ok: bool,
    files: Vec<CheckedFile>,
}

#[derive(Debug, Serialize)]
struct CheckedFile {
    file: String,
    ok: bool,
    #[serde(flatten)]
    report: Report,
}

impl Checked {
    fn new(files: Vec<PathBuf>, extra: fn(&Settings) -> Vec<Problem>) -> Self {
        let check = |path: PathBuf| {
            let loaded = match config::role(&path) {
                Role::Proxy => config::load_with(&path, extra).map(|(_, warnings)| warnings),
                Role::Node => config::node::load(&path).map(|_| Report::default()),
            };
            let ok = loaded.is_ok();
            let report = loaded.unwrap_or_else(|report| report);
            CheckedFile { file: path.display().to_string(), ok, report }
        };
        let files: Vec<_> = files.into_iter().map(check).collect();
        Self { ok: files.iter().all(|file| file.ok), files }
    }

    fn for_people(&self) -> String {
        let show = |file: &CheckedFile| match (file.ok, file.report.problems.is_empty()) {
            (true, true) => format!("{}: ok\n", file.file),
            (true, false) => format!("{}{}: ok, with warnings\n", file.report, file.file),
            (false, _) => file.report.to_string(),
        };
        self.files.iter().map(show).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> (tempfile::TempDir, Checked) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = dir.path().join("proxy.toml");
        std::fs::write(&file, text).expect("written");
        let checked = Checked::new(vec![file, dir.path().join("missing.toml")], |settings| {
            let folders = settings.live.listeners.iter().filter_map(|listener| listener.tls.as_ref());
            folders.map(|tls| Problem::about(tls.certificates.display().to_string(), "no pair", "add one")).collect()
        });
        (dir, checked)
    }

    const GOOD: &str = r#"
role = "proxy"
listener = [{ name = "http", address = "127.0.0.1:0" }]
pool = [{ name = "app", backend = [{ key = "a", address = "127.0.0.1:1" }] }]
route = [{ pool = "app" }]
"#;

    #[test]
    fn the_arguments_are_sound_and_one_file_is_needed() {
        let command = <Args as clap::Args>::augment_args(clap::Command::new("check"));
        command.clone().debug_assert();
        assert!(command.clone().try_get_matches_from(["check", "a", "b", "--json"]).is_ok());
        assert!(command.try_get_matches_from(["check"]).is_err());
    }

    #[test]
    fn each_file_is_told_about() {
        let (dir, checked) = checked(GOOD);
        assert!(!checked.ok);
        let text = checked.for_people().replace(&dir.path().display().to_string(), "DIR");
        insta::assert_snapshot!(text, @r"
        DIR/proxy.toml: ok
        DIR/missing.toml: cannot be read: No such file or directory (os error 2)
            name a file that exists and is readable
        1 problem
        ");
    }

    #[test]
    fn what_is_found_in_other_files_is_told_where_they_are_named() {
        let tls = r#"{ name = "https", address = "127.0.0.1:0", protocol = "https", tls.certificates = "." }, { "#;
        let (dir, checked) = checked(&GOOD.replacen("{ ", tls, 1).replace("\"app\" }]", "\"apple\" }]"));
        let json = serde_json::json!(checked.files[0]).to_string().replace(&dir.path().display().to_string(), "DIR");
        insta::assert_snapshot!(json.replace("},{", "},\n{"), @r#"
        {"file":"DIR/proxy.toml","ok":false,"problems":[{"column":95,"file":"DIR/proxy.toml","line":3,"message":"DIR/.: no pair","remedy":"add one","severity":"error"},
        {"column":19,"file":"DIR/proxy.toml","line":5,"message":"no pool named `apple`","remedy":"the pools are `app`","severity":"error"}]}
        "#);
    }
}
