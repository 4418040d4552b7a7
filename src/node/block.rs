//! Rules of a repository: packages and versions that it withholds, and why. Pure.

use std::cmp::Ordering;
use std::str::FromStr;

use super::cran;
use super::error::Failure;
use super::store::{Block, Language, Repository};
use http::StatusCode;

/// What is written about versions: `<2.0`, `>=1.0, <1.4.2`.
///
/// # Errors
/// What is wrong with it.
pub fn check(language: Language, versions: &str) -> Result<(), String> {
    match language {
        Language::Python => pep440_rs::VersionSpecifiers::from_str(versions).map(drop).map_err(|e| e.to_string()),
        Language::R => conditions(versions).map(drop),
    }
}

/// Why a whole package is withheld, or this version of it. `package`: as looked up.
pub fn reason<'a>(repository: &'a Repository, package: &str, version: Option<&str>) -> Option<&'a str> {
    let first = repository.blocks.partition_point(|block| block.package.as_str() < package);
    let of = repository.blocks[first..].iter().take_while(|block| block.package == package);
    let fits = |block: &&Block| match version {
        _ if block.versions.is_empty() => true,
        Some(version) => fits(repository.language, block, version),
        None => false,
    };
    of.into_iter().find(fits).map(|block| block.reason.as_str())
}

/// As a refusal that clients show.
///
/// # Errors
/// 403 with the reason.
pub fn refuse(repository: &Repository, package: &str, version: Option<&str>) -> Result<(), Failure> {
    match reason(repository, package, version) {
        None => Ok(()),
        Some(reason) => {
            let version = version.map(|version| format!(" {version}")).unwrap_or_default();
            let message = format!("{package}{version} is blocked in repository {}: {reason}", repository.name);
            Err(Failure::new(StatusCode::FORBIDDEN, message))
        }
    }
}

/// What cannot be read is withheld: better too much than too little.
fn fits(language: Language, block: &Block, version: &str) -> bool {
    match language {
        Language::Python => {
            let Ok(specifiers) = pep440_rs::VersionSpecifiers::from_str(&block.versions) else { return true };
            version.parse().map_or(true, |version| specifiers.contains(&version))
        }
        Language::R => conditions(&block.versions)
            .map_or(true, |all| all.iter().all(|(wanted, than)| wanted.contains(&cran::name::compare(version, than)))),
    }
}

/// How a version may compare to another one.
type Condition = (&'static [Ordering], String);

fn conditions(text: &str) -> Result<Vec<Condition>, String> {
    use Ordering::{Equal, Greater, Less};
    const OPERATORS: [(&str, &[Ordering]); 6] = [
        (">=", &[Greater, Equal]),
        ("<=", &[Less, Equal]),
        ("==", &[Equal]),
        ("!=", &[Less, Greater]),
        (">", &[Greater]),
        ("<", &[Less]),
    ];
    let one = |condition: &'_ str| -> Result<_, String> {
        let condition = condition.trim();
        let found = OPERATORS.iter().find_map(|(sign, wanted)| Some((*wanted, condition.strip_prefix(sign)?.trim())));
        let (wanted, version) = found.unwrap_or((&[Equal], condition));
        if cran::name::is_version(version) {
            Ok((wanted, version.to_owned()))
        } else {
            Err(format!("`{condition}` is no condition on a version, such as `< 2.0`"))
        }
    };
    text.split(',').map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(language: Language, versions: &str) -> Repository {
        let block = Block { package: "a".into(), versions: versions.into(), reason: "why".into() };
        Repository { blocks: vec![block], ..Repository::empty(language) }
    }

    #[test]
    fn versions_are_withheld_as_their_language_compares_them() {
        for (language, versions, blocked, free) in [
            (Language::Python, "<2.0", ["1.10", "1.99"], ["2.0", "2.0rc1"]),
            (Language::Python, ">=1.0, !=1.5", ["1.4", "2"], ["0.9", "1.5"]),
            (Language::R, "< 1.10-1", ["1.9", "1.10"], ["1.10-1", "2.0"]),
            (Language::R, ">=1.0,<1.4", ["1.0", "1.3.9"], ["0.9", "1.4"]),
            (Language::R, "1.5", ["1.5", "1.5"], ["1.5.1", "1.4"]),
        ] {
            assert_eq!(check(language, versions), Ok(()), "{versions}");
            let repository = repository(language, versions);
            for version in blocked {
                assert_eq!(reason(&repository, "a", Some(version)), Some("why"), "{versions} {version}");
            }
            for version in free {
                assert_eq!(reason(&repository, "a", Some(version)), None, "{versions} {version}");
            }
            assert_eq!(reason(&repository, "a", None), None, "not as a whole");
            assert_eq!(reason(&repository, "b", Some("1.0")), None);
        }
        for language in [Language::Python, Language::R] {
            assert!(reason(&repository(language, ""), "a", None).is_some());
            assert!(check(language, "newer than 1").is_err());
        }
    }
}
