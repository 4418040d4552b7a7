//! What may be written, told by the same table that reads it: the JSON Schema for editors and the full example for people.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};

use super::file::File;
use super::reader::{Key, Presence, Section, Shape};

/// Whose file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A load balancer's.
    Proxy,
    /// A package server's.
    Node,
}

impl Role {
    fn section(self) -> Section {
        match self {
            Self::Proxy => File::section(),
            Self::Node => super::node::section(),
        }
    }
}

/// JSON Schema (draft 2020-12) of a file. It knows the shape; what must hold between values only [`super::load`] and
/// [`super::node::load`] know.
pub fn json_schema(role: Role) -> Json {
    let mut schema = table(&role.section());
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    let title = match role {
        Role::Proxy => "Bowline proxy",
        Role::Node => "Bowline node",
    };
    schema.insert("title".to_owned(), json!(title));
    Json::Object(schema)
}

/// [`json_schema`] as files have it.
pub fn json_schema_text(role: Role) -> String {
    format!("{:#}\n", json_schema(role))
}

/// A file that shows every key with its explanation and its default, and loads if the files it names are there.
pub fn example(role: Role) -> String {
    write_example(role, true)
}

/// Without defaults it has only keys that change something, and loads to the same settings.
pub(super) fn write_example(role: Role, with_defaults: bool) -> String {
    let mut out = match role {
        Role::Proxy => String::from("#:schema schema.json\n"),
        Role::Node => String::new(),
    };
    let root = role.section();
    comment(&mut out, &root.doc);
    out.push('\n');
    keys(&mut out, &root, with_defaults);
    tables(&mut out, &root, "", with_defaults);
    out
}

fn keys(out: &mut String, section: &Section, with_defaults: bool) {
    for key in section.keys.iter().filter(|key| matches!((key.shape)(), Shape::Leaf(_))) {
        let (name, doc) = (key.name, key.doc.as_str());
        let (mark, doc, value) = match &key.presence {
            Presence::Default(_) | Presence::Preset(_) if !with_defaults => continue,
            Presence::Required(value) => ("", format!("{doc} Required."), *value),
            Presence::Default(value) => ("", format!("{doc} Default: {value}."), value.as_str()),
            Presence::Preset(value) | Presence::Optional(value) => ("", doc.to_owned(), *value),
            Presence::Commented(value) => ("# ", doc.to_owned(), *value),
            Presence::Table | Presence::AtLeastOne(_) => continue,
        };
        comment(out, &doc);
        let _ = writeln!(out, "{mark}{name} = {value}");
    }
}

fn tables(out: &mut String, section: &Section, path: &str, with_defaults: bool) {
    for key in &section.keys {
        let (inner, open, close) = match (key.shape)() {
            Shape::Leaf(_) => continue,
            Shape::Table(inner) => (inner, "[", "]"),
            Shape::Tables(inner) => (inner, "[[", "]]"),
        };
        let path = format!("{path}{}", key.name);
        out.push('\n');
        comment(out, &inner.doc);
        // A table that holds tables only needs no header of its own.
        if inner.keys.iter().any(|key| matches!((key.shape)(), Shape::Leaf(_))) {
            let _ = writeln!(out, "{open}{path}{close}");
        }
        keys(out, &inner, with_defaults);
        tables(out, &inner, &format!("{path}."), with_defaults);
        out.push_str(inner.appendix);
    }
}

fn comment(out: &mut String, doc: &str) {
    for line in doc.lines() {
        let _ = writeln!(out, "# {line}");
    }
}

fn table(section: &Section) -> Map<String, Json> {
    let required: Vec<&str> = section
        .keys
        .iter()
        .filter(|key| matches!(key.presence, Presence::Required(_) | Presence::AtLeastOne(_)))
        .map(|key| key.name)
        .collect();
    let properties: Map<String, Json> = section.keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let mut schema = Map::new();
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("description".to_owned(), json!(section.doc.replace('\n', " ")));
    schema.insert("additionalProperties".to_owned(), json!(false));
    schema.insert("properties".to_owned(), Json::Object(properties));
    if !required.is_empty() {
        schema.insert("required".to_owned(), json!(required));
    }
    schema
}

fn property(key: &Key) -> Json {
    let mut schema = match (key.shape)() {
        Shape::Leaf(leaf) => leaf,
        Shape::Table(section) => Json::Object(table(&section)),
        Shape::Tables(section) => {
            let least = usize::from(matches!(key.presence, Presence::AtLeastOne(_)));
            json!({ "type": "array", "minItems": least, "items": table(&section) })
        }
    };
    if !key.doc.is_empty() {
        schema["description"] = json!(key.doc.replace('\n', " "));
    }
    if let Presence::Default(value) = &key.presence {
        schema["default"] = as_json(value);
    }
    schema
}

/// TOML's scalars are JSON's, as far as defaults use them.
fn as_json(toml: &str) -> Json {
    serde_json::from_str(toml).unwrap_or_else(|_| json!(toml))
}
