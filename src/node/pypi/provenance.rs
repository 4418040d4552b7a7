//! Where a file comes from, as its publisher attests it (PEP 740).
//!
//! The attestations are kept and shown as they came. That each is about this very file is checked; who signed it, a client
//! finds out from the signatures.

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::name;
use crate::node::download::{self, Wanted};
use crate::node::error::Failure;
use crate::node::parts::{Origin, Parts};
use crate::types::Sha256;

/// Attestations of one file.
const ATTESTATIONS_MAX: usize = 16;

/// The provenance object of a file, from the form's field `attestations`: a JSON array.
///
/// # Errors
/// 400: it is not that, or about another file.
pub fn object(attestations: &str, filename: &str, sha256: &Sha256, publisher: &str) -> Result<Vec<u8>, Failure> {
    let wrong = |why: &str| Failure::bad(format!("The field `attestations` is not as PEP 740 has it: {why}"));
    let all: Vec<Value> = serde_json::from_str(attestations).map_err(|_| wrong("it is no JSON array"))?;
    if all.is_empty() || all.len() > ATTESTATIONS_MAX {
        return Err(wrong("it has none, or more than 16"));
    }
    for attestation in &all {
        if attestation["version"] != json!(1) || !attestation["verification_material"].is_object() {
            return Err(wrong("an attestation has another version than 1, or no verification material"));
        }
        let envelope = &attestation["envelope"];
        let statement = envelope["statement"].as_str().filter(|_| envelope["signature"].is_string());
        let statement = statement.and_then(|text| STANDARD.decode(text).ok());
        let statement: Option<Value> = statement.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let statement =
            statement.ok_or_else(|| wrong("an envelope has no statement that can be read, or no signature"))?;
        let subject = statement["subject"].as_array().filter(|all| all.len() == 1).map(|all| &all[0]);
        let is_this = subject.is_some_and(|subject| {
            subject["name"] == json!(filename) && subject["digest"]["sha256"] == json!(sha256.to_string())
        });
        if !is_this {
            return Err(wrong("an attestation is about another file"));
        }
    }
    let bundle = json!({ "publisher": { "kind": "bowline", "claims": { "key": publisher } }, "attestations": all });
    Ok(json!({ "version": 1, "attestation_bundles": [bundle] }).to_string().into_bytes())
}

/// `integrity/{project}/{version}/{filename}/provenance`.
///
/// # Errors
/// See [`Failure`].
pub async fn provenance(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    Path((repository, project, version, filename)): Path<(String, String, String, String)>,
    method: Method,
    fields: HeaderMap,
) -> Result<Response, Failure> {
    let repository = parts.readable(&repository, &fields, origin).await?;
    let missing = || Failure::not_found(format_args!("provenance of `{filename}` in repository `{}`", repository.name));
    let found = parts.store.project(repository.id, &name::normal(&project), i64::MAX).await?;
    let (project, _) = found.filter(|(project, _)| project.status != "quarantined").ok_or_else(missing)?;
    let told = parts.store.told(project.id).await?;
    let file = told.into_iter().find(|file| file.filename == filename && file.version == version);
    let digest = file.and_then(|file| file.provenance_sha256?.parse().ok()).ok_or_else(missing)?;
    let wanted = Wanted { method: &method, fields: &fields };
    download::blob(&parts.packages, digest, "application/vnd.pypi.integrity.v1+json", &repository, wanted).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attestation(name: &str, sha256: &str) -> Value {
        let statement = json!({ "subject": [{ "name": name, "digest": { "sha256": sha256 } }] }).to_string();
        json!({
            "version": 1,
            "verification_material": {},
            "envelope": { "statement": STANDARD.encode(statement), "signature": "x" },
        })
    }

    #[test]
    fn attestations_of_this_file_are_kept_and_others_refused() {
        let digest = Sha256::new([0xaa; 32]);
        let hexadecimal = digest.to_string();
        let good = attestation("a-1.0.tar.gz", &hexadecimal);
        let told = |text: &str| object(text, "a-1.0.tar.gz", &digest, "ci");
        let kept: Value = serde_json::from_slice(&told(&json!([good]).to_string()).unwrap()).unwrap();
        assert_eq!(kept["attestation_bundles"][0]["attestations"][0], good);
        assert_eq!(kept["attestation_bundles"][0]["publisher"]["claims"]["key"], "ci");
        let mut other_version = good.clone();
        other_version["version"] = json!(2);
        for wrong in [
            "no json".to_owned(),
            "{}".to_owned(),
            "[]".to_owned(),
            json!([attestation("b-1.0.tar.gz", &hexadecimal)]).to_string(),
            json!([attestation("a-1.0.tar.gz", "00")]).to_string(),
            json!([other_version]).to_string(),
            json!([{ "version": 1, "verification_material": {}, "envelope": { "statement": "%%", "signature": "x" } }])
                .to_string(),
            json!(vec![good; 17]).to_string(),
        ] {
            assert!(told(&wrong).is_err(), "{wrong}");
        }
    }
}
