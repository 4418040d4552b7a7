//! Problems of a configuration and how they print.

use std::fmt;

use serde::Serialize;

/// Everything that is wrong with a configuration, sorted by position. Never empty when it is an error.
///
/// `Display` is for people, two lines a problem and a last one with their number; `Serialize` gives
/// `{"problems": [{"file", "line", "column", "message", "remedy", "severity": "error" | "warning"}]}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// By position; those without one come first.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong, where, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The file as the operator named it.
    pub file: String,
    /// From 1; `None` when the problem is the file itself.
    pub line: Option<usize>,
    /// In characters, from 1; `None` exactly when `line` is.
    pub column: Option<usize>,
    /// What was found. Lower case, no trailing period.
    pub message: String,
    /// What would be right; never empty.
    pub remedy: String,
    /// Whether it keeps the configuration from being used.
    pub severity: Severity,
}

/// What a problem does to its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It is refused.
    Error,
    /// It is used all the same, and somebody should look.
    Warning,
}

impl Problem {
    /// A problem with a file as a whole.
    pub fn about(file: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            line: None,
            column: None,
            message: message.into(),
            remedy: remedy.into(),
            severity: Severity::Error,
        }
    }

    /// A problem at a place in a file; line and column count from 1.
    pub fn at(
        file: impl Into<String>,
        (line, column): (usize, usize),
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { line: Some(line), column: Some(column), ..Self::about(file, message, remedy) }
    }
}

impl Report {
    /// Whether anything keeps the configuration from being used.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// Each problem in one line, the remedy in parentheses.
    pub fn lines(&self) -> Vec<String> {
        self.problems.iter().map(|problem| problem.to_string().replacen("\n    ", " (", 1) + ")").collect()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, ":{line}:{column}")?;
        }
        let mark = if self.severity == Severity::Warning { "warning: " } else { "" };
        write!(f, ": {mark}{}\n    {}", self.message, self.remedy)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "{problem}")?;
        }
        let warnings = self.problems.iter().filter(|problem| problem.severity == Severity::Warning).count();
        let told = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        match (self.problems.len() - warnings, warnings) {
            (errors, 0) => writeln!(f, "{}", told(errors, "problem")),
            (0, warnings) => writeln!(f, "{}", told(warnings, "warning")),
            (errors, warnings) => writeln!(f, "{}, {}", told(errors, "problem"), told(warnings, "warning")),
        }
    }
}

impl std::error::Error for Report {}

impl From<Problem> for Report {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

/// Text of the operator's in backticks: control characters escaped, cut after 80 characters.
pub fn quoted(text: &str) -> String {
    let mut out = String::from("`");
    for (count, c) in text.chars().enumerate() {
        match c {
            _ if count == 80 => {
                out.push('…');
                break;
            }
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out.push('`');
    out
}

/// The one of `candidates` that was probably meant by `word`, if one is close enough.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // Names have 64 characters at most; the bound keeps a file full of long nonsense cheap.
    if word.len() > 64 {
        return None;
    }
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_a_stranger_is_not() {
        let keys = ["address", "admin", "key", "weight"];
        assert_eq!(nearest("adress", keys), Some("address"));
        assert_eq!(nearest("Weigth", keys), Some("weight"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest(&"a".repeat(1_000_000), keys), None);
    }

    #[test]
    fn quoted_text_cannot_forge_lines() {
        assert_eq!(quoted("a\nb\u{1b}[31m"), "`a\\nb\\u{1b}[31m`");
        assert_eq!(quoted(&"x".repeat(100)).chars().count(), 83);
    }
}
