//! The text of a configuration file and where its bytes are in lines and columns.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use super::report::Problem;

/// Larger files are refused: a configuration of this size is a mistake, and parsing it would cost memory.
pub(super) const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A byte range in the text of a [`Source`].
pub(super) type Span = Range<usize>;

/// A file's text, known to be UTF-8, without a byte order mark.
#[derive(Debug)]
pub(super) struct Source {
    file: String,
    text: String,
    /// Where each line begins; ascending, the first is 0.
    lines: Vec<usize>,
}

impl Source {
    /// Reads a file of at most [`FILE_BYTES_MAX`].
    pub(super) fn read(path: &Path) -> Result<Self, Problem> {
        let file = path.display().to_string();
        match read_bounded(path) {
            Ok(bytes) => Self::new(file, bytes),
            Err(error) => {
                Err(Problem::about(file, format!("cannot be read: {error}"), "name a file that exists and is readable"))
            }
        }
    }

    /// Takes bytes as the content of `file`, which is only named.
    pub(super) fn new(file: String, bytes: Vec<u8>) -> Result<Self, Problem> {
        if bytes.len() > FILE_BYTES_MAX {
            let remedy = format!("a configuration may have {FILE_BYTES_MAX} bytes; is this the right file?");
            return Err(Problem::about(file, "the file is too large", remedy));
        }
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let head = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
                let place = Self::index(file.clone(), head).position(valid);
                let message = format!("not UTF-8: byte {valid} (from 0) begins no character");
                return Err(Problem::at(file, place, message, "save the file as UTF-8"));
            }
        };
        let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        Ok(Self::index(file, text))
    }

    fn index(file: String, text: String) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(starts).collect();
        Self { file, text, lines }
    }

    /// The file as the operator named it.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// All of it.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Line and column, both from 1, columns in characters. An offset beyond the end is the end.
    pub(super) fn position(&self, offset: usize) -> (usize, usize) {
        let offset = self.text.floor_char_boundary(offset);
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines[line - 1];
        (line, self.text[start..offset].chars().count() + 1)
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let source = Source::new("f".to_owned(), "ab\nçd\r\n".into()).expect("UTF-8");
        let places = [(0, (1, 1)), (2, (1, 3)), (3, (2, 1)), (4, (2, 1)), (5, (2, 2)), (8, (3, 1)), (999, (3, 1))];
        for (offset, place) in places {
            assert_eq!(source.position(offset), place, "offset {offset}");
        }
    }

    #[test]
    fn bytes_that_are_no_utf8_are_reported_with_their_offset() {
        let problem = Source::new("f".to_owned(), b"a = 1\nb = \"\xff\"".to_vec()).expect_err("not UTF-8");
        assert_eq!((problem.line, problem.column), (Some(2), Some(6)));
        assert!(problem.message.contains("byte 11 "), "{problem}");
    }

    #[test]
    fn a_byte_order_mark_does_not_shift_columns() {
        let source = Source::new("f".to_owned(), "\u{feff}a = 1".into()).expect("UTF-8");
        assert_eq!(source.text(), "a = 1");
    }

    #[test]
    fn a_file_beyond_the_limit_is_refused() {
        assert!(Source::new("f".to_owned(), vec![b'#'; FILE_BYTES_MAX]).is_ok());
        let problem = Source::new("f".to_owned(), vec![b'#'; FILE_BYTES_MAX + 1]).expect_err("too large");
        assert_eq!(problem.message, "the file is too large");
    }
}
