//! R's serialisation, version 3, as far as CRAN's indexes need it: a matrix of text, and a list of data frames. Pure.
//!
//! R Internals §1.8. The same values give the same bytes as R's own `serialize(x, NULL)`.

pub mod read;

use std::collections::HashMap;

/// What R calls `NA_character_`.
const NA: Option<&str> = None;

const SYMBOL: i32 = 1;
const PAIRLIST: i32 = 2;
const LOGICAL: i32 = 10;
const INTEGER: i32 = 13;
const REAL: i32 = 14;
const STRING: i32 = 16;
const LIST: i32 = 19;
const NIL: i32 = 254;
const REFERENCE: i32 = 255;
const IS_OBJECT: i32 = 1 << 8;
const HAS_ATTRIBUTES: i32 = 1 << 9;
const HAS_TAG: i32 = 1 << 10;

/// A matrix of text with names for its rows and columns. `rows`: name and cells, all of one length.
pub fn matrix(columns: &[&str], rows: &[(&str, Vec<Option<&str>>)]) -> Vec<u8> {
    let mut out = Writer::new();
    out.ints(&[STRING | HAS_ATTRIBUTES, length(rows.len() * columns.len())]);
    for column in 0..columns.len() {
        for (_, cells) in rows {
            out.string(cells.get(column).copied().unwrap_or(NA));
        }
    }
    out.attribute("dim");
    out.ints(&[INTEGER, 2, length(rows.len()), length(columns.len())]);
    out.attribute("dimnames");
    out.ints(&[LIST, 2]);
    // Without rows R has no names for them, not none.
    if rows.is_empty() {
        out.ints(&[NIL]);
    } else {
        out.strings(rows.iter().map(|(name, _)| *name));
    }
    out.strings(columns.iter().copied());
    out.ints(&[NIL]);
    out.bytes
}

/// One file of a package as `file.info` tells it.
#[derive(Clone, Copy, Debug)]
pub struct Info<'a> {
    /// `pk/pk_1.0.tar.gz`.
    pub path: &'a str,
    /// Bytes.
    pub size: f64,
    /// Seconds since 1970.
    pub modified: f64,
}

/// CRAN's `Meta/archive.rds`: by package a data frame of its files.
pub fn archive(packages: &[(&str, Vec<Info<'_>>)]) -> Vec<u8> {
    const COLUMNS: [&str; 10] = ["size", "isdir", "mode", "mtime", "ctime", "atime", "uid", "gid", "uname", "grname"];
    let mut out = Writer::new();
    out.ints(&[LIST | HAS_ATTRIBUTES, length(packages.len())]);
    for (_, files) in packages {
        out.ints(&[LIST | HAS_ATTRIBUTES | IS_OBJECT, length(COLUMNS.len())]);
        out.reals(files.iter().map(|file| file.size), None);
        out.numbers(LOGICAL, files.len(), 0, None);
        out.numbers(INTEGER, files.len(), 0o644, Some(&["octmode"]));
        for _ in 0..3 {
            out.reals(files.iter().map(|file| file.modified), Some(&["POSIXct", "POSIXt"]));
        }
        out.numbers(INTEGER, files.len(), 0, None);
        out.numbers(INTEGER, files.len(), 0, None);
        out.strings(files.iter().map(|_| "root"));
        out.strings(files.iter().map(|_| "root"));
        out.attribute("names");
        out.strings(COLUMNS.into_iter());
        out.attribute("class");
        out.strings(["data.frame"].into_iter());
        out.attribute("row.names");
        out.strings(files.iter().map(|file| file.path));
        out.ints(&[NIL]);
    }
    out.attribute("names");
    out.strings(packages.iter().map(|(name, _)| *name));
    out.ints(&[NIL]);
    out.bytes
}

struct Writer {
    bytes: Vec<u8>,
    /// Symbols that were written, with their number.
    symbols: HashMap<&'static str, i32>,
}

impl Writer {
    fn new() -> Self {
        let mut out = Self { bytes: b"X\n".to_vec(), symbols: HashMap::new() };
        // Version 3, written as by R 4.2.2, readable from R 3.5.0 on, in UTF-8.
        out.ints(&[3, 0x0004_0202, 0x0003_0500, 5]);
        out.bytes.extend(b"UTF-8");
        out
    }

    fn ints(&mut self, values: &[i32]) {
        values.iter().for_each(|value| self.bytes.extend(value.to_be_bytes()));
    }

    fn string(&mut self, text: Option<&str>) {
        const ASCII: i32 = 0x0004_0009;
        const UTF8: i32 = 0x0000_8009;
        match text {
            None => self.ints(&[9, -1]),
            Some(text) => {
                self.ints(&[if text.is_ascii() { ASCII } else { UTF8 }, length(text.len())]);
                self.bytes.extend(text.as_bytes());
            }
        }
    }

    fn strings<'a>(&mut self, texts: impl ExactSizeIterator<Item = &'a str>) {
        self.ints(&[STRING, length(texts.len())]);
        texts.for_each(|text| self.string(Some(text)));
    }

    fn numbers(&mut self, kind: i32, count: usize, value: i32, class: Option<&[&str]>) {
        self.ints(&[kind | flags(class), length(count)]);
        (0..count).for_each(|_| self.ints(&[value]));
        self.class(class);
    }

    fn reals(&mut self, values: impl ExactSizeIterator<Item = f64>, class: Option<&[&str]>) {
        self.ints(&[REAL | flags(class), length(values.len())]);
        values.for_each(|value| self.bytes.extend(value.to_be_bytes()));
        self.class(class);
    }

    fn class(&mut self, class: Option<&[&str]>) {
        if let Some(class) = class {
            self.attribute("class");
            self.strings(class.iter().copied());
            self.ints(&[NIL]);
        }
    }

    /// The name of an attribute; its value follows.
    fn attribute(&mut self, name: &'static str) {
        self.ints(&[PAIRLIST | HAS_TAG]);
        if let Some(number) = self.symbols.get(name) {
            let reference = (number << 8) | REFERENCE;
            self.ints(&[reference]);
        } else {
            let number = length(self.symbols.len() + 1);
            self.symbols.insert(name, number);
            self.ints(&[SYMBOL]);
            self.string(Some(name));
        }
    }
}

fn flags(class: Option<&[&str]>) -> i32 {
    if class.is_some() { HAS_ATTRIBUTES | IS_OBJECT } else { 0 }
}

/// R counts in 32 bits.
fn length(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_is_written_as_r_writes_it() {
        // `serialize(matrix(c("a", NA), 1, dimnames = list("a", c("Package", "Depends"))), NULL)` in R 4.2.2.
        let expected = "580a 00000003 00040202 00030500 00000005 5554462d38 00000210 00000002 00040009 00000001 61 \
             00000009 ffffffff 00000402 00000001 00040009 00000003 64696d 0000000d 00000002 00000001 00000002 \
             00000402 00000001 00040009 00000008 64696d6e616d6573 00000013 00000002 00000010 00000001 00040009 \
             00000001 61 00000010 00000002 00040009 00000007 5061636b616765 00040009 00000007 446570656e6473 \
             000000fe"
            .replace(' ', "");
        let written = matrix(&["Package", "Depends"], &[("a", vec![Some("a"), None])]);
        let hexadecimal: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hexadecimal, expected);
    }
}
