//! Names of projects and files. Pure.

/// Whether this is a project's name (core metadata's `Name`).
pub fn is_valid(name: &str) -> bool {
    let is_end = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    name.len() <= 256
        && is_end(bytes.first())
        && is_end(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
}

/// PEP 503's normal form: lower case, runs of `-`, `_` and `.` become one `-`.
pub fn normal(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if matches!(c, '-' | '_' | '.') {
            if !out.ends_with('-') {
                out.push('-');
            }
        } else {
            out.push(c.to_ascii_lowercase());
        }
    }
    out
}

/// What the name of a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filename {
    /// As in the name, not normal.
    pub project: String,
    /// As in the name.
    pub version: String,
    /// Which kind of file.
    pub kind: Kind,
}

/// Which kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Built: PEP 427.
    Wheel,
    /// Source: PEP 625, or older.
    Sdist,
}

impl Kind {
    /// As upload forms and rows write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wheel => "bdist_wheel",
            Self::Sdist => "sdist",
        }
    }
}

/// Reads a file's name.
///
/// # Errors
/// One sentence for whoever uploads it.
pub fn parse(filename: &str) -> Result<Filename, String> {
    if filename.len() > 255
        || !filename
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b'\\' | b'"' | b'<' | b'>' | b'?' | b'#' | b'%'))
    {
        return Err("Invalid filename: it has characters that a file name or a URL cannot carry".into());
    }
    if let Some(stem) = filename.strip_suffix(".whl") {
        let parts: Vec<&str> = stem.split('-').collect();
        let ([project, version, _, _, _] | [project, version, _, _, _, _]) = parts[..] else {
            return Err("Invalid wheel filename: NAME-VERSION[-BUILD]-PYTHON-ABI-PLATFORM.whl is expected".into());
        };
        if parts.len() == 6 && !parts[2].starts_with(|c: char| c.is_ascii_digit()) {
            return Err("Invalid wheel filename: a build number begins with a digit".into());
        }
        if parts.iter().any(|part| part.is_empty()) || !is_valid(project) {
            return Err("Invalid wheel filename: a part of it is empty or malformed".into());
        }
        return Ok(Filename { project: project.into(), version: version.into(), kind: Kind::Wheel });
    }
    let stem = filename.strip_suffix(".tar.gz").or_else(|| filename.strip_suffix(".zip"));
    let Some(stem) = stem else { return Err("Invalid file extension: .whl, .tar.gz or .zip is expected".into()) };
    match stem.rsplit_once('-') {
        Some((project, version)) if is_valid(project) && !version.is_empty() => {
            Ok(Filename { project: project.into(), version: version.into(), kind: Kind::Sdist })
        }
        _ => Err("Invalid source distribution filename: NAME-VERSION.tar.gz is expected".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_normal_form() {
        for name in ["My.Package", "my-package", "MY__package", "my-._package"] {
            assert_eq!(normal(name), "my-package", "{name}");
        }
        for (name, expected) in
            [("a", true), ("a.b-c_d", true), ("", false), ("-a", false), ("a-", false), ("a b", false), ("ä", false)]
        {
            assert_eq!(is_valid(name), expected, "{name}");
        }
    }

    #[test]
    fn files_tell_project_version_and_kind() {
        let read = |name: &str| parse(name).map(|f| (f.project, f.version, f.kind)).ok();
        let expected = |p: &str, v: &str, k| Some((p.to_owned(), v.to_owned(), k));
        assert_eq!(read("my_pkg-1.0-py3-none-any.whl"), expected("my_pkg", "1.0", Kind::Wheel));
        assert_eq!(read("a-1.0+l.1-2b-cp311-cp311-manylinux_2_17_x86_64.whl"), expected("a", "1.0+l.1", Kind::Wheel));
        assert_eq!(read("my-old-pkg-1.0.tar.gz"), expected("my-old-pkg", "1.0", Kind::Sdist));
        for wrong in [
            "a.whl",
            "a-1-b-py3-none-any.whl",
            "a-1--none-any.whl",
            "a-1.exe",
            "../a-1.tar.gz",
            "a-.zip",
            "a b-1.zip",
            "-1.tar.gz",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
