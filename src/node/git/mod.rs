//! Packages from git repositories: what is there, and how a package is made of it.

mod build;
mod program;
mod sync;

use reqwest::Url;
use serde::{Deserialize, Serialize};

pub use self::build::build;
pub use self::sync::{retry, sync};

/// What a source of the kind `git` is made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitSettings {
    /// As `git` takes it.
    pub url: String,
    /// Every commit of this branch; `None`: every tag.
    #[serde(default)]
    pub branch: Option<String>,
    /// Where the package is in the repository; `None`: at its top.
    #[serde(default)]
    pub folder: Option<String>,
}

impl GitSettings {
    /// Checks what somebody wrote.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    pub fn check(&self) -> Result<(), String> {
        let wrong = || {
            format!(
                "`{}` is no URL of a git repository, such as `https://git.example.org/team/package.git`; what it takes to \
                 log in belongs into git's own configuration on the nodes",
                self.url
            )
        };
        let url: Url = self.url.parse().map_err(|_| wrong())?;
        let has_place = url.has_host() || url.scheme() == "file";
        if !["https", "http", "ssh", "git", "file"].contains(&url.scheme()) || !has_place || url.password().is_some() {
            return Err(wrong());
        }
        if let Some(branch) = &self.branch
            && !is_ref(branch)
        {
            return Err(format!("`{branch}` is no name of a branch"));
        }
        if let Some(folder) = &self.folder {
            let is_part = |part: &str| {
                !part.is_empty()
                    && part != "."
                    && part != ".."
                    && part.chars().all(|c| c.is_alphanumeric() || "._-+ ".contains(c))
            };
            if !folder.split('/').all(is_part) {
                return Err(format!("`{folder}` is no folder in a repository, such as `packages/alpha`"));
            }
        }
        Ok(())
    }
}

/// What git would take as a branch or tag (git-check-ref-format(1)), and a little less.
fn is_ref(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && !name.starts_with(['-', '/', '.'])
        && !name.ends_with(['/', '.'])
        && !name.contains("..")
        && !name.contains("//")
        && name.chars().all(|c| c.is_alphanumeric() || "._-/+@#".contains(c))
        && !name.contains("@{")
}

/// What a build is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Wanted {
    /// Of the source's row.
    source: i64,
    /// `refs/tags/v1.0`, `refs/heads/main`.
    name: String,
    /// 40 or 64 hexadecimal digits.
    commit: String,
}

impl Wanted {
    /// `v1.0`, `main`.
    fn short(&self) -> &str {
        self.name.splitn(3, '/').nth(2).unwrap_or(&self.name)
    }

    /// Of the job: the same for the same commit by the same name, so that nothing is built twice.
    fn subject(&self, source: &str) -> String {
        format!("{source} {} {}", self.short(), self.commit.get(..12).unwrap_or(&self.commit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_that_git_takes_and_nothing_secret_or_clever() {
        let settings = |url: &str, branch: Option<&str>, folder: Option<&str>| GitSettings {
            url: url.to_owned(),
            branch: branch.map(str::to_owned),
            folder: folder.map(str::to_owned),
        };
        let url = "https://git.example.org/a/b.git";
        for (url, branch, folder) in [
            (url, None, None),
            ("ssh://git@git.example.org/a/b", Some("release/1.0"), Some("pkg/a")),
            ("file:///srv/git/a", Some("main"), None),
        ] {
            assert_eq!(settings(url, branch, folder).check(), Ok(()), "{url}");
        }
        for (url, branch, folder) in [
            ("ext::sh -c id", None, None),
            ("--upload-pack=id", None, None),
            ("/srv/git", None, None),
            ("https://me:secret@git.example.org/a", None, None),
            (url, Some("--all"), None),
            (url, Some("a..b"), None),
            (url, None, Some("../x")),
            (url, None, Some("/etc")),
            (url, None, Some("$(id)")),
        ] {
            assert!(settings(url, branch, folder).check().is_err(), "{url} {branch:?} {folder:?}");
        }
    }
}
