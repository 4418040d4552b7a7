//! Paths that people give their content beside its guid: `/sales/`. Pure.

/// Parts of a path.
pub const DEPTH_MAX: usize = 8;
/// Characters of a path.
const PATH_MAX: usize = 200;

/// What paths never begin with: ours, and Posit Connect's, so that content can move between the two.
const RESERVED: &[&str] = &[
    "__",
    "favicon.ico",
    "connect",
    "apps",
    "users",
    "groups",
    "setpassword",
    "user-completion",
    "confirm",
    "recent",
    "reports",
    "plots",
    "unpublished",
    "settings",
    "metrics",
    "tokens",
    "help",
    "login",
    "welcome",
    "register",
    "resetpassword",
    "content",
    "packages",
    "robots.txt",
    ".well-known",
];

/// A path as rows keep it, with both slashes.
///
/// # Errors
/// Why it cannot be one, in a sentence.
pub fn check(path: &str) -> Result<String, String> {
    let inner = path.strip_prefix('/').unwrap_or(path);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~".contains(&b))
    };
    let parts: Vec<&str> = inner.split('/').collect();
    if path.len() > PATH_MAX || parts.len() > DEPTH_MAX || !parts.iter().all(|p| is_part(p)) {
        return Err(format!(
            "`{path}` is no path for content: `/` and up to {DEPTH_MAX} names of letters, digits, `-`, `_`, `.` and `~`, such as `/sales/north/`"
        ));
    }
    let first = parts[0].to_ascii_lowercase();
    if RESERVED.iter().any(|reserved| first == *reserved || *reserved == "__" && first.starts_with("__")) {
        return Err(format!(
            "`{path}` cannot be a path of content: what begins with `/{}` is the server's own",
            parts[0]
        ));
    }
    Ok(format!("/{inner}/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_plain_and_leave_the_servers_own_alone() {
        for (written, kept) in [
            ("/sales", "/sales/"),
            ("sales", "/sales/"),
            ("/sales/North-2/", "/sales/North-2/"),
            ("/contents/", "/contents/"),
        ] {
            assert_eq!(check(written).as_deref(), Ok(kept));
        }
        for wrong in [
            "",
            "/",
            "//",
            "//sales/",
            "/a//b/",
            "/../x",
            "/a b/",
            "/a%2fb/",
            "/CONTENT/x",
            "/__api__/",
            "/packages",
            "/.x/",
        ] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
        assert!(check(&"/a".repeat(9)).is_err() && check(&format!("/{}", "a".repeat(200))).is_err());
    }
}
