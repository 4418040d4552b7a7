//! `/__api__/status` as renv and pak read it: for which Linux distributions there may be binary packages.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde_json::{Value, json};

use crate::node::error::Failure;
use crate::node::parts::Parts;

/// Codenames with the distribution and release they stand for.
const DISTRIBUTIONS: &[(&str, &str, &str)] = &[
    ("bullseye", "debian", "11"),
    ("bookworm", "debian", "12"),
    ("trixie", "debian", "13"),
    ("focal", "ubuntu", "20.04"),
    ("jammy", "ubuntu", "22.04"),
    ("noble", "ubuntu", "24.04"),
    ("resolute", "ubuntu", "26.04"),
    ("rhel8", "redhat", "8"),
    ("rhel9", "redhat", "9"),
    ("rhel10", "redhat", "10"),
    ("centos8", "centos", "8"),
    ("opensuse155", "opensuse", "15.5"),
    ("opensuse156", "opensuse", "15.6"),
];

/// What this server is and which binaries it has.
///
/// # Errors
/// 503 without a database.
pub async fn status(State(parts): State<Parts>) -> Result<Json<Value>, Failure> {
    let locations = parts.store.locations().await?;
    let mut linux: Vec<(&str, &str)> = locations
        .iter()
        .filter_map(|location| {
            let mut folders = location.strip_prefix("linux/")?.split('/');
            Some((folders.next()?, folders.next()?))
        })
        .collect();
    linux.sort_unstable();
    linux.dedup();
    let mut codenames: Vec<&str> = linux.iter().map(|(codename, _)| *codename).collect();
    codenames.dedup();
    let mut versions: Vec<&str> = linux.iter().map(|(_, version)| *version).collect();
    versions.sort_unstable();
    versions.dedup();
    let distros: Vec<Value> = codenames.into_iter().map(distribution).collect();
    Ok(Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "product": "bowline",
        "r_configured": true,
        "binaries_enabled": !distros.is_empty(),
        "auth_available": true,
        "distros": distros,
        "r_versions": versions,
    })))
}

/// `/__api__/repos/{id}/sysreqs`, where remotes and older versions of pak ask which system packages R packages need.
///
/// No DESCRIPTION says so in words a machine understands, and an empty answer would say that they need none: so it is an
/// error, in the form those clients print.
pub async fn system_requirements() -> (StatusCode, Json<Value>) {
    let told = json!({
        "code": 14,
        "error": "this server does not know which system packages R packages need; RSPM_ROOT may name one that does",
    });
    (StatusCode::NOT_FOUND, Json(told))
}

fn distribution(codename: &str) -> Value {
    let known = DISTRIBUTIONS.iter().find(|(known, _, _)| *known == codename);
    let (name, release) = known.map_or((codename, ""), |(_, name, release)| (name, release));
    json!({
        "name": codename,
        "os": "linux",
        "binaryURL": codename,
        "binaryDisplay": codename,
        "url": codename,
        "display": format!("{name} {release}").trim(),
        "distribution": name,
        "release": release,
        "sysReqs": false,
        "binaries": true,
        "hidden": false,
        "official": true,
    })
}
