//! Core metadata: header fields as in mail (PEP 566, core metadata 2.x), as far as we need them. Pure.

/// The first value of a field, unfolded; `None`: it is not there.
pub fn field<'a>(metadata: &'a str, name: &str) -> Option<&'a str> {
    headers(metadata).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The lines before the body.
fn headers(metadata: &str) -> impl Iterator<Item = &str> {
    metadata.lines().take_while(|line| !line.trim_end().is_empty()).filter(|line| !line.starts_with([' ', '\t']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_before_the_body_only() {
        let text =
            "Metadata-Version: 2.1\r\nName: Alpha\nVersion: 1.0\nSummary: a\n  Name: not this\n\nLicense: body\n";
        assert_eq!(field(text, "name"), Some("Alpha"));
        assert_eq!(field(text, "Version"), Some("1.0"));
        assert_eq!(field(text, "License"), None);
    }
}
