//! Core metadata: header fields as in mail (PEP 566, core metadata 2.x), as far as we need them. Pure.

/// The first value of a field, unfolded; `None`: it is not there.
pub fn field<'a>(metadata: &'a str, name: &str) -> Option<&'a str> {
    headers(metadata).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Every field, unfolded, by the name upload forms have for it; last, as `description`, the body.
pub fn fields(metadata: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut lines = metadata.lines();
    for line in lines.by_ref() {
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = found.last_mut() {
                value.push('\n');
                value.push_str(line.trim_start());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            found.push((form_name(name), value.trim().to_owned()));
        }
    }
    let body = lines.collect::<Vec<_>>().join("\n");
    if !body.trim().is_empty() {
        found.push(("description".to_owned(), body));
    }
    found
}

/// `Project-URL` is `project_urls` in a form: what may come several times has a plural there, mostly.
fn form_name(name: &str) -> String {
    let name = name.to_ascii_lowercase().replace('-', "_");
    match name.as_str() {
        "classifier" => "classifiers".to_owned(),
        "project_url" => "project_urls".to_owned(),
        "license_file" => "license_files".to_owned(),
        _ => name,
    }
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

    #[test]
    fn a_form_is_made_of_metadata() {
        let text = "Name: Alpha\nProject-URL: Home, https://x.example\nClassifier: A\nClassifier: B\nLicense: one\n  two\n\nRead me\nnow";
        let found = fields(text);
        let pairs: Vec<_> = found.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let expected = [
            ("name", "Alpha"),
            ("project_urls", "Home, https://x.example"),
            ("classifiers", "A"),
            ("classifiers", "B"),
            ("license", "one\ntwo"),
            ("description", "Read me\nnow"),
        ];
        assert_eq!(pairs, expected);
    }
}
