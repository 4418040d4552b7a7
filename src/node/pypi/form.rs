//! The form of a legacy upload, read piece by piece: fields within bounds, the file into the spool.

use std::collections::HashMap;

use axum::body::Body;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use multer::{Constraints, Multipart, SizeLimit};
use serde_json::{Value, json};

use crate::node::blob::{Spool, Spooled};
use crate::node::error::Failure;
use crate::node::publish::append;

/// Fields of a form; a large project has some 200.
const FIELDS_MAX: usize = 2_000;
/// Bytes of one field: a README.
const FIELD_BYTES_MAX: u64 = 4 << 20;
/// Bytes of all fields but the file.
const FORM_BYTES_MAX: usize = 16 << 20;

/// What was sent.
#[derive(Debug)]
pub struct Form {
    fields: HashMap<String, Vec<String>>,
    /// The file with the name it was sent under.
    pub file: Option<(String, Spooled)>,
}

impl Form {
    /// As if these fields of core metadata had been sent.
    pub fn of_metadata(metadata: &str) -> Self {
        let mut form = Self { fields: HashMap::new(), file: None };
        for (name, value) in super::metadata::fields(metadata) {
            form.fields.entry(name).or_default().push(value);
        }
        form
    }

    /// Gives a field one value.
    pub fn set(&mut self, name: &str, value: &str) {
        self.fields.insert(name.to_owned(), vec![value.to_owned()]);
    }

    /// The first value of a field that is not blank.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.iter().map(|value| value.trim()).find(|value| !value.is_empty())
    }

    /// What it says of the release, by PyPI's names for the fields of core metadata: strings, and lists where a field may
    /// come several times.
    pub fn record(&self) -> Value {
        let once = ONCE.iter().filter_map(|name| Some((*name, json!(self.get(name)?))));
        let often = OFTEN.iter().filter_map(|name| Some((*name, json!(self.fields.get(*name)?))));
        once.chain(often).map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Reads the whole body.
    ///
    /// # Errors
    /// 400 for what is no such form, 413 beyond a bound, 503 where the spool is full.
    pub async fn read(fields: &HeaderMap, body: Body, spool: &Spool, file_bytes_max: u64) -> Result<Self, Failure> {
        let told = fields.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let boundary =
            multer::parse_boundary(told).map_err(|_| Failure::bad("The upload is no multipart/form-data"))?;
        let whole = file_bytes_max.saturating_add(FORM_BYTES_MAX as u64 + FIELD_BYTES_MAX);
        let limits = SizeLimit::new()
            .whole_stream(whole)
            .per_field(FIELD_BYTES_MAX)
            .for_field("content", file_bytes_max.saturating_add(1));
        let stream = body.into_data_stream();
        let mut parts = Multipart::with_constraints(stream, boundary, Constraints::new().size_limit(limits));
        let mut form = Self { fields: HashMap::new(), file: None };
        let (mut count, mut bytes) = (0, 0);
        while let Some(mut part) = parts.next_field().await.map_err(|e| broken(&e, file_bytes_max))? {
            count += 1;
            if count > FIELDS_MAX {
                return Err(Failure::bad(format!("The form has more than {FIELDS_MAX} fields")));
            }
            let name = part.name().unwrap_or_default().to_owned();
            if name == "content" {
                let Some(filename) = part.file_name().map(str::to_owned) else {
                    return Err(Failure::bad("The field `content` has no filename"));
                };
                if form.file.is_some() {
                    return Err(Failure::bad("The form has two files"));
                }
                let mut spooling = spool.begin()?;
                while let Some(piece) = part.chunk().await.map_err(|e| broken(&e, file_bytes_max))? {
                    spooling = append(spooling, piece, file_bytes_max).await?;
                }
                form.file = Some((filename, spooling.finish()?));
            } else {
                let value = part.text().await.map_err(|e| broken(&e, file_bytes_max))?;
                bytes += name.len() + value.len();
                if bytes > FORM_BYTES_MAX {
                    return Err(too_large("The form without its file is larger than 16 MiB"));
                }
                form.fields.entry(name).or_default().push(value);
            }
        }
        // What is said of a file must not depend on who reads it.
        if let Some(name) = SINGLE.iter().find(|name| form.fields.get(**name).is_some_and(|values| values.len() > 1)) {
            return Err(Failure::bad(format!("The field `{name}` comes twice")));
        }
        Ok(form)
    }
}

fn too_large(message: impl Into<String>) -> Failure {
    Failure::new(http::StatusCode::PAYLOAD_TOO_LARGE, message)
}

fn broken(error: &multer::Error, file_bytes_max: u64) -> Failure {
    match error {
        multer::Error::FieldSizeExceeded { field_name: Some(name), .. } if name == "content" => {
            too_large(format!("The file is larger than the {file_bytes_max} bytes this server takes"))
        }
        multer::Error::FieldSizeExceeded { .. } | multer::Error::StreamSizeExceeded { .. } => {
            too_large("A field of the form is too large")
        }
        _ => Failure::bad(format!("The upload broke off or is malformed: {error}")),
    }
}

/// By these a file is named and judged.
const SINGLE: &[&str] = &[
    ":action",
    "protocol_version",
    "name",
    "version",
    "filetype",
    "requires_python",
    "sha256_digest",
    "blake2_256_digest",
    "md5_digest",
    "attestations",
];
const ONCE: &[&str] = &[
    "author",
    "author_email",
    "description",
    "description_content_type",
    "download_url",
    "home_page",
    "keywords",
    "license",
    "license_expression",
    "maintainer",
    "maintainer_email",
    "metadata_version",
    "name",
    "pyversion",
    "requires_python",
    "summary",
    "version",
];
const OFTEN: &[&str] = &[
    "classifiers",
    "dynamic",
    "license_file",
    "license_files",
    "obsoletes_dist",
    "platform",
    "project_urls",
    "provides_dist",
    "provides_extra",
    "requires_dist",
    "requires_external",
    "supported_platform",
];
