//! DESCRIPTION files: Debian control format with one record (R's read.dcf). Pure.

/// A DESCRIPTION, its fields in the order they were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description(Vec<(String, String)>);

impl Description {
    /// Reads it, in UTF-8 or as its `Encoding` says (R knows `UTF-8`, `latin1` and, rarely, others).
    ///
    /// # Errors
    /// One sentence for whoever sends it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            // Every byte is a character of Latin-1, and it has no other encoding than it says or than was usual.
            Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
        };
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut fields: Vec<(String, String)> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_end();
            if line.is_empty() {
                continue;
            }
            if line.contains('\0') {
                return Err(format!("DESCRIPTION: line {} has a NUL", number + 1));
            }
            if line.starts_with([' ', '\t']) {
                let Some((_, value)) = fields.last_mut() else {
                    return Err("DESCRIPTION: it begins with a continuation line".into());
                };
                if !value.is_empty() {
                    value.push(' ');
                }
                // R joins by a line feed, and its index by a blank.
                value.push_str(line.trim_start());
                continue;
            }
            let named = line.split_once(':').filter(|(name, _)| is_field_name(name));
            let Some((name, value)) = named else {
                return Err(format!("DESCRIPTION: line {} is no `Field: value`", number + 1));
            };
            if fields.iter().any(|(there, _)| there == name) {
                return Err(format!("DESCRIPTION: the field `{name}` comes twice"));
            }
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
        Ok(Self(fields))
    }

    /// Reads many, separated by blank lines, as PACKAGES has them. What is no record is left out.
    pub fn parse_all(bytes: &[u8]) -> Vec<Self> {
        let text = String::from_utf8_lossy(bytes);
        let text = text.replace("\r\n", "\n");
        text.split("\n\n")
            .filter(|record| !record.trim().is_empty())
            .filter_map(|r| Self::parse(r.as_bytes()).ok())
            .collect()
    }

    /// The value of a field, with its lines joined by blanks; `None`: it is not there, or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
        value.filter(|value| !value.is_empty())
    }
}

fn is_field_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_with_their_continuations() {
        let text = b"Package: pk\r\nDepends: R (>= 3.5),\n    utils,\n\tstats\nEmpty:\nURL: https://x.example\n\n";
        let read = Description::parse(text).unwrap();
        assert_eq!(read.get("Package"), Some("pk"));
        assert_eq!(read.get("Depends"), Some("R (>= 3.5), utils, stats"));
        assert_eq!(read.get("URL"), Some("https://x.example"));
        assert_eq!((read.get("Empty"), read.get("Imports")), (None, None));
    }

    #[test]
    fn latin1_is_read_and_utf8_too() {
        let latin = Description::parse(b"Package: pk\nEncoding: latin1\nAuthor: Andr\xe9\n").unwrap();
        let utf8 = Description::parse("Package: pk\nEncoding: UTF-8\nAuthor: André\n".as_bytes()).unwrap();
        assert_eq!(latin.get("Author"), utf8.get("Author"));
    }

    #[test]
    fn what_is_no_description_is_told_by_line() {
        for (text, words) in [
            ("  x: y\n", "begins with a continuation"),
            ("Package: a\nno field\n", "line 2 is no"),
            ("Package: a\nPackage: b\n", "`Package` comes twice"),
            ("Package: a\0b\n", "line 1 has a NUL"),
            ("Bad name: x\n", "line 1 is no"),
        ] {
            let told = Description::parse(text.as_bytes()).unwrap_err();
            assert!(told.contains(words), "{told}");
        }
    }
}
