//! Which R asks, from its User-Agent: decides whether a binary package fits. Pure.

/// The R on the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RAgent {
    /// `4.2`: binary packages of one minor version fit another patch.
    pub version: String,
    /// `x86_64`.
    pub arch: String,
}

impl RAgent {
    /// Reads `R/4.2.2 R (4.2.2 x86_64-pc-linux-gnu x86_64 linux-gnu)`, which may be one part of several.
    pub fn parse(agent: &str) -> Option<Self> {
        let (_, inner) = agent.split_once("R (")?;
        let mut words = inner.split_once(')')?.0.split(' ');
        let mut numbers = words.next()?.split('.');
        let (major, minor) = (numbers.next()?, numbers.next()?);
        let platform = words.next()?;
        let (arch, _) = platform.split_once('-')?;
        let is_number = |text: &str| !text.is_empty() && text.len() < 4 && text.bytes().all(|b| b.is_ascii_digit());
        let is_arch =
            !arch.is_empty() && arch.len() < 20 && arch.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        (is_number(major) && is_number(minor) && is_arch && platform.contains("linux"))
            .then(|| Self { version: format!("{major}.{minor}"), arch: arch.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r_and_its_package_managers_say_who_they_are() {
        let linux = Some(RAgent { version: "4.2".into(), arch: "x86_64".into() });
        assert_eq!(RAgent::parse("R/4.2.2 R (4.2.2 x86_64-pc-linux-gnu x86_64 linux-gnu)"), linux);
        assert_eq!(RAgent::parse("renv (1.1.2); R (4.2.0 x86_64-pc-linux-gnu x86_64 linux-gnu)"), linux);
        for other in [
            "libcurl/7.88.1",
            "",
            "R (4.2.2 x86_64-w64-mingw32 x86_64 mingw32)",
            "R (x y z)",
            "R (4.2.2 x86_64-pc-linux-gnu",
            "R (4.2/../../x x86_64-pc-linux-gnu a b)",
        ] {
            assert_eq!(RAgent::parse(other), None, "{other}");
        }
    }
}
