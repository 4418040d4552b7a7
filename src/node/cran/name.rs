//! Names and versions of R packages (Writing R Extensions §1.1.1), and what is read from file names. Pure.

use std::cmp::Ordering;

/// Letters, digits and dots; at least two; begins with a letter, does not end in a dot.
pub fn is_package(text: &str) -> bool {
    text.len() >= 2
        && text.len() <= 255
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && !text.ends_with('.')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
}

/// At least two numbers, separated by single dots or dashes.
pub fn is_version(text: &str) -> bool {
    text.len() <= 255
        && text.contains(['.', '-'])
        && text.split(['.', '-']).all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

/// As R's `package_version` compares: number by number, the shorter first.
pub fn compare(a: &str, b: &str) -> Ordering {
    let numbers =
        |text: &str| -> Vec<u128> { text.split(['.', '-']).map(|part| part.parse().unwrap_or(u128::MAX)).collect() };
    numbers(a).cmp(&numbers(b)).then_with(|| a.cmp(b))
}

/// `pk_1.0.tar.gz` as package, version and ending.
pub fn split(filename: &str) -> Option<(&str, &str, &str)> {
    let ending = [".tar.gz", ".tgz", ".zip"].into_iter().find(|ending| filename.ends_with(ending))?;
    let (package, version) = filename.strip_suffix(ending)?.split_once('_')?;
    (is_package(package) && is_version(version)).then_some((package, version, ending))
}

/// The name a package has in a repository: `R CMD INSTALL --build` puts the platform into it.
pub fn plain(filename: &str) -> String {
    match filename.split_once("_R_") {
        Some((name, platform)) if platform.ends_with(".tar.gz") => format!("{name}.tar.gz"),
        _ => filename.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions_are_those_of_r() {
        assert!(is_package("pk") && is_package("R6") && is_package("data.table"));
        for wrong in ["p", "1a", "a.", "a_b", "a-b", "", "é1"] {
            assert!(!is_package(wrong), "{wrong}");
        }
        assert!(is_version("1.0") && is_version("1-2") && is_version("0.0.0.9000"));
        for wrong in ["1", "", "1.", "1..2", "1.0a", "v1.0"] {
            assert!(!is_version(wrong), "{wrong}");
        }
        assert_eq!(split("pk_1.0-2.tar.gz"), Some(("pk", "1.0-2", ".tar.gz")));
        assert_eq!(split("pk_1.0.zip"), Some(("pk", "1.0", ".zip")));
        assert_eq!(plain("pk_1.0_R_x86_64-pc-linux-gnu.tar.gz"), "pk_1.0.tar.gz");
        assert_eq!(plain("pk_1.0.tgz"), "pk_1.0.tgz");
        for wrong in ["pk.tar.gz", "pk_1.0.tar.bz2", "../pk_1.0.tar.gz", "pk_1.0_x.tgz"] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let mut all = ["1.10", "1.9", "1.9-1", "1.9.0", "0.99.9", "2-0", "1.9.0.1"];
        all.sort_by(|a, b| compare(a, b));
        assert_eq!(all, ["0.99.9", "1.9", "1.9.0", "1.9.0.1", "1.9-1", "1.10", "2-0"]);
    }
}
