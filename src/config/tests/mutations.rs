//! Files nobody would write: each loads, or is refused with a position; none makes the program panic.

use proptest::prelude::*;
use proptest::sample::Index;
use tempfile::TempDir;

use crate::config::schema;

use super::{read_text, site};

/// A change to the bytes of a file.
#[derive(Clone, Debug)]
enum Change {
    Remove(Index, usize),
    Insert(Index, Vec<u8>),
    /// A stretch again at another place.
    Copy(Index, usize, Index),
    SwapLines(Index, Index),
    RemoveLine(Index),
}

fn change() -> impl Strategy<Value = Change> {
    let piece = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..8),
        "[\\[\\]{}\"'=.,#\n \\\\a-z0-9_-]{0,12}".prop_map(String::into_bytes),
        proptest::sample::select(vec![
            "[[pool]]\n",
            "[admin]\n",
            "true",
            "-1",
            "0x10",
            "1e9",
            "\"30s\"",
            "\"0\"",
            "{}",
            "[]",
            "[[]]",
            "\"\"",
            "1979-05-27",
            "'''",
            "\"\"\"",
            "\u{feff}",
            "name = \"x\"\n",
            "99999999999999999999",
            "nan",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    prop_oneof![
        (any::<Index>(), 1..40_usize).prop_map(|(at, count)| Change::Remove(at, count)),
        (any::<Index>(), piece).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (any::<Index>(), 1..200_usize, any::<Index>()).prop_map(|(from, count, to)| Change::Copy(from, count, to)),
        (any::<Index>(), any::<Index>()).prop_map(|(a, b)| Change::SwapLines(a, b)),
        any::<Index>().prop_map(Change::RemoveLine),
    ]
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |index: &Index, bytes: &[u8]| index.index(bytes.len() + 1);
        match self {
            Self::Remove(at, count) => {
                let at = place(at, bytes);
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Self::Insert(at, piece) => {
                let at = place(at, bytes);
                bytes.splice(at..at, piece.iter().copied());
            }
            Self::Copy(from, count, to) => {
                let (from, to) = (place(from, bytes), place(to, bytes));
                let piece = bytes[from..(from + count).min(bytes.len())].to_vec();
                bytes.splice(to..to, piece);
            }
            Self::SwapLines(a, b) => {
                let mut lines: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
                let (a, b) = (a.index(lines.len()), b.index(lines.len()));
                lines.swap(a, b);
                *bytes = lines.join(&b'\n');
            }
            Self::RemoveLine(at) => {
                let mut lines: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
                lines.remove(at.index(lines.len()));
                *bytes = lines.join(&b'\n');
            }
        }
    }
}

/// It loads, or every problem has a place within the file, something to say and a remedy.
fn loads_or_tells_where(bytes: &[u8], dir: &TempDir) -> Result<bool, TestCaseError> {
    let Err(report) = read_text(bytes, dir.path()) else { return Ok(true) };
    prop_assert!(!report.problems.is_empty());
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.split('\n').collect();
    for problem in &report.problems {
        let (line, column) = (problem.line.unwrap_or(0), problem.column.unwrap_or(0));
        prop_assert!((1..=lines.len()).contains(&line), "{problem}");
        prop_assert!((1..=lines[line - 1].chars().count() + 1).contains(&column), "{problem}");
        prop_assert!(!problem.message.is_empty() && !problem.remedy.is_empty(), "{problem:?}");
        prop_assert!(!problem.to_string().contains('\u{1b}'), "{problem:?}");
    }
    Ok(false)
}

proptest! {
    #[test]
    fn any_bytes_load_or_are_refused_with_a_position(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        loads_or_tells_where(&bytes, &site())?;
    }

    #[test]
    fn anything_like_toml_loads_or_is_refused_with_a_position(text in "([a-z_\\[\\]{}.=\"' ,0-9]|\n|pool|listener){0,80}") {
        loads_or_tells_where(text.as_bytes(), &site())?;
    }

    #[test]
    fn any_change_of_the_full_example_loads_or_is_refused_with_a_position(
        changes in proptest::collection::vec(change(), 1..6),
    ) {
        let mut bytes = schema::example(schema::Role::Proxy).into_bytes();
        for change in &changes {
            change.apply(&mut bytes);
        }
        loads_or_tells_where(&bytes, &site())?;
    }
}
