//! TOML → checked settings. All or nothing: either [`proxy::Settings`], or a [`report::Report`] that names every
//! problem with file, line, column and remedy.
//!
//! Settings are dead values: no handles, no sockets, nothing that changes. A file passes through `source` (its text),
//! `reader` into `file` (what is written, by one table that [`schema`] describes too), and `build` (what is meant).

mod build;
pub mod default;
mod file;
mod host;
pub mod node;
pub mod preset;
pub mod proxy;
mod reader;
pub mod report;
pub mod schema;
mod source;
mod value;
mod word;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use toml::de::DeTable;

use self::proxy::Settings;
use self::reader::Problems;
use self::report::{Problem, Report, quoted};
use self::source::{Source, Span};

/// Reads and checks a proxy's configuration. Opens no key, certificate or socket; see [`load_with`].
///
/// # Errors
/// Every problem there is, at least one.
pub fn load(path: &Path) -> Result<Settings, Report> {
    load_with(path, |_| Vec::new()).map(|(settings, _)| settings)
}

/// As [`load`], and asks `extra` what is wrong with the files that the settings name: certificates, key rings, CA files.
///
/// `extra` sees what could be built, also when other things are wrong, so that all problems are reported together. A
/// problem of its about a path that the configuration names, or about something below it, is reported at that place.
///
/// With the settings come the warnings.
///
/// # Errors
/// As [`load`].
pub fn load_with(path: &Path, extra: impl FnOnce(&Settings) -> Vec<Problem>) -> Result<(Settings, Report), Report> {
    let source = Source::read(path)?;
    // Absolute, so that the settings mean the same wherever the process goes. It fails only where the working directory
    // is gone, and then the path as given is the best there is.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = absolute.parent().unwrap_or(Path::new("/"));
    read(&source, folder, extra)
}

/// Whose file it is, as far as it says so: a file that cannot be read is checked as a proxy's, which says why.
pub fn role(path: &Path) -> schema::Role {
    let Ok(source) = Source::read(path) else { return schema::Role::Proxy };
    let (tree, _) = DeTable::parse_recoverable(source.text());
    match tree.get_ref().get("role").and_then(|role| role.get_ref().as_str()) {
        Some("node") => schema::Role::Node,
        _ => schema::Role::Proxy,
    }
}

/// Reads only where a proxy's admin endpoint is: for those who ask a running proxy, whatever else the file has come to
/// say since it was started.
///
/// # Errors
/// What is wrong with `[admin]`, or with the file where that cannot be found for it.
pub fn load_admin(path: &Path) -> Result<proxy::Admin, Report> {
    let source = Source::read(path)?;
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = absolute.parent().unwrap_or(Path::new("/"));
    let mut problems = Problems::new(&source, file::File::section().keys.iter().map(|key| key.name));
    let (tree, errors) = DeTable::parse_recoverable(source.text());
    let Some(written) = tree.get_ref().get("admin") else {
        // It may be behind what cannot be read.
        return if errors.is_empty() {
            Ok(build::admin(None, folder, &mut problems))
        } else {
            load(path).map(|s| s.startup.admin)
        };
    };
    let read = <file::Admin as reader::Value>::read(written, "admin", &mut problems);
    let admin = build::admin(read.as_ref(), folder, &mut problems);
    let report = problems.into_report();
    if report.has_errors() { Err(report) } else { Ok(admin) }
}

fn read(
    source: &Source,
    folder: &Path,
    extra: impl FnOnce(&Settings) -> Vec<Problem>,
) -> Result<(Settings, Report), Report> {
    let mut problems = Problems::new(source, file::File::section().keys.iter().map(|key| key.name));
    let Some(tree) = parse(source, &mut problems) else { return Err(problems.into_report()) };
    let file = file::File::read_table(tree.get_ref(), &(0..0), &mut problems);
    let (settings, paths) = build::build(&file, folder, &mut problems);
    // Of a path that is wrong in itself, what is found in it (nothing) need not be told.
    let paths: Vec<_> = paths.into_iter().map(|(path, span)| (path, problems.has_error_at(&span), span)).collect();
    for problem in extra(&settings) {
        report_at_path(problem, &paths, &mut problems);
    }
    let report = problems.into_report();
    if report.has_errors() { Err(report) } else { Ok((settings, report)) }
}

/// Reads a file of another role: `build` makes of its table what it means.
fn load_file<T>(
    path: &Path,
    top_level: Vec<&'static str>,
    build: impl FnOnce(&DeTable<'_>, &Path, &mut Problems<'_>) -> Option<T>,
) -> Result<T, Report> {
    let source = Source::read(path)?;
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = absolute.parent().unwrap_or(Path::new("/"));
    let mut problems = Problems::new(&source, top_level.into_iter());
    let built = parse(&source, &mut problems).and_then(|tree| build(tree.get_ref(), folder, &mut problems));
    let report = problems.into_report();
    match built {
        Some(built) if !report.has_errors() => Ok(built),
        _ => Err(report),
    }
}

/// The tree of a text that is TOML; `None`, with the problems, where it is not.
fn parse<'s>(source: &'s Source, problems: &mut Problems<'_>) -> Option<toml::Spanned<DeTable<'s>>> {
    let (tree, errors) = DeTable::parse_recoverable(source.text());
    let mut is_readable = true;
    for error in errors {
        let span = error.span().unwrap_or(source.text().len()..source.text().len());
        if error.message() == DUPLICATE_KEY {
            let key = source.text().get(span.clone()).unwrap_or_default();
            problems.at(&span, format!("the key {} is there twice", quoted(key)), "keep one of the two");
        } else {
            is_readable = false;
            problems.at(&span, format!("not TOML: {}", error.message()), "see https://toml.io for how it is written");
        }
    }
    // Where the parser lost its way, keys may have landed in the wrong table: what they mean cannot be judged.
    is_readable.then_some(tree)
}

/// What the parser says of a table that is otherwise sound.
const DUPLICATE_KEY: &str = "duplicate key";

/// Adds a problem with a file at the place that names the file, or its folder. Paths come with whether they are known to be
/// wrong themselves.
fn report_at_path(problem: Problem, paths: &[(PathBuf, bool, Span)], problems: &mut Problems<'_>) {
    let about = Path::new(&problem.file);
    let named =
        paths.iter().filter(|(path, ..)| about.starts_with(path)).max_by_key(|(path, ..)| path.as_os_str().len());
    match named {
        Some((_, true, _)) => {}
        Some((_, _, span)) if problem.line.is_none() => {
            problems.add_at(span, Problem { message: format!("{}: {}", problem.file, problem.message), ..problem });
        }
        _ => problems.add(problem),
    }
}
