//! From a TOML tree with positions to the mirror in [`super::file`], without stopping at the first mistake.
//!
//! `serde` ends at the first unknown key or wrong type, an operator wants them all. So the mirror's structs are declared
//! by [`section!`], which makes three things of one table: the struct, its reader, and its description, from which
//! [`super::schema`] writes the JSON Schema and the full example. Unknown keys are always refused.

use serde_json::{Value as Json, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::{Problem, Report, Severity, nearest, quoted};
use super::source::{Source, Span};

/// What was wrong so far, with the text it is about.
#[derive(Debug)]
pub(super) struct Problems<'s> {
    source: &'s Source,
    /// The keys of the top level.
    top_level: Vec<&'static str>,
    found: Vec<Problem>,
    /// Those beyond [`PROBLEMS_MAX`].
    dropped: usize,
}

/// A report of more problems helps nobody and would cost memory.
const PROBLEMS_MAX: usize = 1000;

/// A list may have this many elements, so that checks of each against each stay cheap.
const ELEMENTS_MAX: usize = 10_000;

/// A value of the file.
pub(super) trait Value: Sized {
    /// Reads it; `None` if it was wrong, which has then been added to `problems`.
    fn read(value: &Spanned<DeValue<'_>>, name: &str, problems: &mut Problems<'_>) -> Option<Self>;

    /// What may be written.
    fn shape() -> Shape;
}

/// A value that is written as a TOML string.
pub(super) trait Text: Sized {
    /// Reads it.
    fn parse(text: &str) -> Result<Self, Wrong>;

    /// JSON Schema of the string.
    fn schema() -> Json {
        json!({ "type": "string" })
    }

    /// What would be right, for those who wrote no string at all.
    const REMEDY: &'static str;
}

/// Why a text is not right, and what would be.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) remedy: String,
}

/// What may be written for a value.
pub(super) enum Shape {
    /// One value, or a list of such; its JSON Schema.
    Leaf(Json),
    /// `[table]`.
    Table(Section),
    /// `[[table]]`.
    Tables(Section),
}

/// The description of a table.
pub(super) struct Section {
    pub(super) doc: String,
    /// In the order of the example.
    pub(super) keys: Vec<Key>,
    /// TOML that follows in the full example, for what cannot stand in the same table.
    pub(super) appendix: &'static str,
}

/// The description of one key.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) doc: String,
    pub(super) presence: Presence,
    pub(super) shape: fn() -> Shape,
}

/// What was found for a key.
#[derive(Clone, Debug, Default)]
pub(super) enum Field<T> {
    /// The key is not there.
    #[default]
    Missing,
    /// Its value was wrong, which has been reported.
    Wrong,
    /// Its value.
    Right(Spanned<T>),
}

/// Whether a key must be there, and how the full example shows it. Text is TOML.
pub(super) enum Presence {
    /// It must be there; a value to show.
    Required(&'static str),
    /// It may be left out, which means this.
    Default(String),
    /// It may be left out, which means what the preset says; in the example's pool this.
    Preset(&'static str),
    /// It may be left out, which means none; a value to show.
    Optional(&'static str),
    /// As `Optional`, but it would be wrong in the example: shown as a comment.
    Commented(&'static str),
    /// A table, or a list of tables, of which nothing needs to be there.
    Table,
    /// A list of tables with at least one element; how to write one.
    AtLeastOne(&'static str),
}

impl<'s> Problems<'s> {
    pub(super) fn new(source: &'s Source, top_level: impl Iterator<Item = &'static str>) -> Self {
        Self { source, top_level: top_level.collect(), found: Vec::new(), dropped: 0 }
    }

    /// Adds a problem at the start of `span`.
    pub(super) fn at(&mut self, span: &Span, message: impl Into<String>, remedy: impl Into<String>) {
        self.add_at(span, Problem::about("", message, remedy));
    }

    /// Adds what does not keep the file from being used.
    pub(super) fn warn(&mut self, span: &Span, message: impl Into<String>, remedy: impl Into<String>) {
        self.add_at(span, Problem { severity: Severity::Warning, ..Problem::about("", message, remedy) });
    }

    /// Whether something is wrong with what begins where `span` does.
    pub(super) fn has_error_at(&self, span: &Span) -> bool {
        let (line, column) = self.source.position(span.start);
        let is_there = |p: &Problem| (p.line, p.column) == (Some(line), Some(column));
        self.found.iter().any(|p| is_there(p) && p.severity == Severity::Error)
    }

    /// Adds a problem, whose place is the start of `span`.
    pub(super) fn add_at(&mut self, span: &Span, problem: Problem) {
        // Beyond the limit the place is not shown, so it is not worth finding.
        let (line, column) = if self.found.len() < PROBLEMS_MAX { self.source.position(span.start) } else { (1, 1) };
        self.add(Problem { file: self.source.file().to_owned(), line: Some(line), column: Some(column), ..problem });
    }

    /// Adds a problem that has its own place.
    pub(super) fn add(&mut self, problem: Problem) {
        if self.found.len() < PROBLEMS_MAX {
            self.found.push(problem);
        } else {
            self.dropped += 1;
        }
    }

    /// The line a span begins in, for a message that points to a second place.
    pub(super) fn line(&self, span: &Span) -> usize {
        self.source.position(span.start).0
    }

    /// Sorted by position.
    pub(super) fn into_report(mut self) -> Report {
        self.found.sort();
        if self.dropped > 0 {
            let message = format!("{} more problems are not listed", self.dropped);
            self.found.push(Problem::about(self.source.file(), message, "correct those above first"));
        }
        Report { problems: self.found }
    }
}

impl<T> Field<T> {
    /// The value, if it is there and right.
    pub(super) fn get(&self) -> Option<&T> {
        self.spanned().map(Spanned::get_ref)
    }

    /// As [`Self::get`], with its position.
    pub(super) fn spanned(&self) -> Option<&Spanned<T>> {
        match self {
            Self::Right(value) => Some(value),
            Self::Missing | Self::Wrong => None,
        }
    }

    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Missing)
    }
}

impl<T> Field<Vec<Spanned<T>>> {
    /// The elements that are right; none if the key is not there.
    pub(super) fn elements(&self) -> &[Spanned<T>] {
        self.get().map_or(&[], Vec::as_slice)
    }
}

impl Wrong {
    /// `text` is not `what`; `remedy` says what would be right.
    pub(super) fn not(text: &str, what: &str, remedy: impl Into<String>) -> Self {
        Self { message: format!("{} is not {what}", quoted(text)), remedy: remedy.into() }
    }
}

impl<T: Text> Value for T {
    fn read(value: &Spanned<DeValue<'_>>, name: &str, problems: &mut Problems<'_>) -> Option<Self> {
        let Some(text) = value.get_ref().as_str() else {
            wrong_type(value, name, T::REMEDY, problems);
            return None;
        };
        T::parse(text).map_err(|wrong| problems.at(&value.span(), wrong.message, wrong.remedy)).ok()
    }

    fn shape() -> Shape {
        Shape::Leaf(T::schema())
    }
}

impl Value for bool {
    fn read(value: &Spanned<DeValue<'_>>, name: &str, problems: &mut Problems<'_>) -> Option<Self> {
        let read = value.get_ref().as_bool();
        if read.is_none() {
            wrong_type(value, name, "write `true` or `false`", problems);
        }
        read
    }

    fn shape() -> Shape {
        Shape::Leaf(json!({ "type": "boolean" }))
    }
}

/// Elements that are wrong are left out, the others kept.
impl<T: Value> Value for Vec<Spanned<T>> {
    fn read(value: &Spanned<DeValue<'_>>, name: &str, problems: &mut Problems<'_>) -> Option<Self> {
        let Some(array) = value.get_ref().as_array() else {
            let remedy = match T::shape() {
                Shape::Leaf(_) => "write a list: `[ … ]`".to_owned(),
                Shape::Table(_) | Shape::Tables(_) => format!("write `[[{name}]]` above the keys of each"),
            };
            wrong_type(value, name, &remedy, problems);
            return None;
        };
        if array.len() > ELEMENTS_MAX {
            let message = format!("`{name}` has {} elements", array.len());
            problems.at(&value.span(), message, format!("write {ELEMENTS_MAX} at most"));
            return None;
        }
        Some(array.iter().filter_map(|v| Some(Spanned::new(v.span(), T::read(v, name, problems)?))).collect())
    }

    fn shape() -> Shape {
        match T::shape() {
            Shape::Leaf(items) => Shape::Leaf(json!({ "type": "array", "items": items })),
            Shape::Table(section) | Shape::Tables(section) => Shape::Tables(section),
        }
    }
}

/// Says what is there instead of what is expected.
pub(super) fn wrong_type(value: &Spanned<DeValue<'_>>, name: &str, remedy: &str, problems: &mut Problems<'_>) {
    let kind = match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    problems.at(&value.span(), format!("`{name}` is {kind}"), remedy);
}

/// Reports every key of `table` that `section` does not have.
pub(super) fn refuse_unknown_keys(table: &DeTable<'_>, title: &str, section: &Section, problems: &mut Problems<'_>) {
    for written in table.keys() {
        let word: &str = written.get_ref();
        let names = || section.keys.iter().map(|key| key.name);
        if names().any(|name| name == word) {
            continue;
        }
        let remedy = if let Some(path) = elsewhere(word, section, "") {
            format!("it belongs in a table below: `{path}`")
        } else if let Some(name) = nearest(word, names()) {
            format!("did you mean `{name}`?")
        } else if problems.top_level.contains(&word) {
            // In TOML every line after `[table]` belongs to it.
            format!("it belongs at the top level: write `{word}` above the first `[table]`")
        } else {
            format!("the keys here are {}", list(names()))
        };
        problems.at(&written.span(), format!("unknown key {} in {title}", quoted(word)), remedy);
    }
}

/// Where in the tables of `section` a key of this name is: `limits.head_bytes`.
fn elsewhere(word: &str, section: &Section, path: &str) -> Option<String> {
    section.keys.iter().find_map(|key| match (key.shape)() {
        Shape::Table(inner) if inner.keys.iter().any(|key| key.name == word) => {
            Some(format!("{path}{}.{word}", key.name))
        }
        Shape::Table(inner) => elsewhere(word, &inner, &format!("{path}{}.", key.name)),
        Shape::Leaf(_) | Shape::Tables(_) => None,
    })
}

/// Words in backticks, separated by commas.
pub(super) fn list<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    words.into_iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// Reads the value of `key`, if there is one. `span` is the table's, for a key that must be there and is not.
pub(super) fn field<T: Value>(
    table: &DeTable<'_>,
    (title, span): (&str, &Span),
    key: &Key,
    problems: &mut Problems<'_>,
) -> Field<T> {
    let value = table.get(key.name);
    let lacks = |example: &str| (format!("{title} has no `{}`", key.name), format!("add it, for example `{example}`"));
    match &key.presence {
        Presence::Required(example) if value.is_none() => {
            let (message, remedy) = lacks(&format!("{} = {example}", key.name));
            problems.at(span, message, remedy);
        }
        Presence::AtLeastOne(example) => {
            let is_empty = |v: &Spanned<DeValue<'_>>| v.get_ref().as_array().is_some_and(|array| array.is_empty());
            if value.is_none_or(is_empty) {
                let (message, remedy) = lacks(example);
                problems.at(&value.map_or(span.clone(), Spanned::span), message, remedy);
            }
        }
        _ => {}
    }
    let Some(value) = value else { return Field::Missing };
    T::read(value, key.name, problems).map_or(Field::Wrong, |read| Field::Right(Spanned::new(value.span(), read)))
}

/// Declares tables of the file. Each becomes a struct of [`Field`]s, with a reader and a description.
macro_rules! section {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident($title:literal $(, appendix $appendix:expr)?) {
            $( $(#[doc = $key_doc:literal])* $key:ident: $type:ty = $presence:expr, )+
        }
    )+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Debug, Default)]
        pub(super) struct $name {
            $( $(#[doc = $key_doc])* pub(super) $key: $crate::config::reader::Field<$type>, )+
        }

        impl $name {
            /// Its name in messages.
            pub(super) const TITLE: &'static str = $title;

            /// What may be written in it.
            pub(super) fn section() -> $crate::config::reader::Section {
                #[allow(unused_mut, unused_assignments, reason = "not every table has an appendix")]
                let mut appendix = "";
                $( appendix = $appendix; )?
                $crate::config::reader::Section {
                    doc: <[&str]>::join(&[$( $doc.trim() ),+], "\n"),
                    keys: vec![$( $crate::config::reader::Key {
                        name: stringify!($key).trim_start_matches("r#"),
                        doc: <[&str]>::join(&[$( $key_doc.trim() ),*], "\n"),
                        presence: $presence,
                        shape: <$type as $crate::config::reader::Value>::shape,
                    }, )+],
                    appendix,
                }
            }

            /// Reads every key there is.
            pub(super) fn read_table(
                table: &toml::de::DeTable<'_>,
                span: &$crate::config::source::Span,
                problems: &mut $crate::config::reader::Problems<'_>,
            ) -> Self {
                let section = Self::section();
                $crate::config::reader::refuse_unknown_keys(table, Self::TITLE, &section, problems);
                // The description has the keys in the order of the fields: both come from the same lines.
                let mut keys = section.keys.iter();
                let mut read = Self::default();
                $( if let Some(key) = keys.next() {
                    read.$key = $crate::config::reader::field(table, (Self::TITLE, span), key, problems);
                } )+
                read
            }
        }

        impl $crate::config::reader::Value for $name {
            fn read(
                value: &toml::Spanned<toml::de::DeValue<'_>>,
                name: &str,
                problems: &mut $crate::config::reader::Problems<'_>,
            ) -> Option<Self> {
                let Some(table) = value.get_ref().as_table() else {
                    let remedy = format!("write a table: `{name} = {{ … }}`");
                    $crate::config::reader::wrong_type(value, name, &remedy, problems);
                    return None;
                };
                Some(Self::read_table(table, &value.span(), problems))
            }

            fn shape() -> $crate::config::reader::Shape {
                $crate::config::reader::Shape::Table(Self::section())
            }
        }
    )+};
}

pub(super) use section;
