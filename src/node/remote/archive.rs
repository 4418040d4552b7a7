//! The Archive of another CRAN-like repository: its `Meta/archive.rds`, in our words. Pure.

use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::node::cran::name;
use crate::node::cran::rds::read::{self, Object, Value};

/// Where it is, as rows and URLs have it.
pub const PATH: &str = "src/contrib/Meta/archive.rds";

/// What somebody else's Archive has of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteArchive {
    /// Its name.
    pub name: String,
    /// As it is told.
    pub versions: Vec<RemoteVersion>,
}

/// A version there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteVersion {
    /// As the file's name says it.
    pub version: String,
    /// Bytes.
    pub size: i64,
    /// When its file was made, microseconds since 1970.
    pub modified: i64,
}

/// Reads a `Meta/archive.rds`. Files that are not called as those of the Archive are left out; packages by name.
///
/// # Errors
/// What is wrong with it.
pub fn read(body: &[u8], _content_type: &str, _base: &Url) -> Result<Vec<RemoteArchive>, String> {
    let bytes = read::unpack(body)?;
    let all = read::read(&bytes)?;
    let frames = match &all.value {
        Value::List(frames) => frames,
        Value::Nil => return Ok(Vec::new()),
        _ => return Err("it is no list of packages".into()),
    };
    let names = all.texts("names").unwrap_or_default();
    if names.len() != frames.len() {
        return Err("its packages have no names".into());
    }
    let mut packages: Vec<RemoteArchive> =
        names.iter().zip(frames).filter_map(|(name, frame)| package((*name)?, frame)).collect();
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    packages.dedup_by(|later, first| later.name == first.name);
    Ok(packages)
}

fn package(name: &[u8], frame: &Object<'_>) -> Option<RemoteArchive> {
    let name = str::from_utf8(name).ok().filter(|name| name::is_package(name))?;
    let paths = frame.texts("row.names")?;
    let (sizes, times) = (frame.element("size")?.numbers()?, frame.element("mtime")?.numbers()?);
    if sizes.len() != paths.len() || times.len() != paths.len() {
        return None;
    }
    let files = paths.iter().zip(sizes.iter().zip(times));
    let versions = files.filter_map(|(path, (size, time))| {
        let (folder, file) = str::from_utf8((*path)?).ok()?.split_once('/')?;
        let (package, version, ending) = name::split(file)?;
        let is_there = folder == name && package == name && ending == ".tar.gz";
        // What is not a number is 0, and what is too large the largest there is.
        is_there.then(|| RemoteVersion {
            version: version.to_owned(),
            size: (*size as i64).max(0),
            modified: (time * 1e6) as i64,
        })
    });
    let versions: Vec<RemoteVersion> = versions.collect();
    (!versions.is_empty()).then(|| RemoteArchive { name: name.to_owned(), versions })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::cran::rds::{self, Info};

    #[test]
    fn what_we_write_is_read_back_and_what_is_no_file_of_an_archive_left_out() {
        let info = |path| Info { path, size: 7.0, modified: 1.5 };
        let bytes = rds::archive(&[
            ("zeta", vec![info("zeta/zeta_1.0.tar.gz")]),
            (
                "alpha",
                vec![info("alpha/alpha_1.0.tar.gz"), info("alpha/../x_1.0.tar.gz"), info("beta/beta_1.0.tar.gz")],
            ),
            ("beta", vec![info("beta/readme")]),
            ("../x", vec![info("../x/x_1.0.tar.gz")]),
        ]);
        let url: Url = "https://x.example/".parse().unwrap();
        let all = read(&bytes, "", &url).unwrap();
        let of = |name: &str| RemoteArchive {
            name: name.to_owned(),
            versions: vec![RemoteVersion { version: "1.0".to_owned(), size: 7, modified: 1_500_000 }],
        };
        assert_eq!(all, [of("alpha"), of("zeta")]);
        assert_eq!(read(&rds::archive(&[]), "", &url).unwrap(), []);
        assert!(read(b"<html>", "text/html", &url).is_err());
        assert!(read(&rds::matrix(&["a"], &[]), "", &url).is_err());
    }
}
