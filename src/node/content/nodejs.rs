//! What an app for Node.js requires and does not bring. There is no npm registry here, and nothing is installed from elsewhere:
//! an app brings what it requires in its bundle.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// Bytes of a `package.json` that are looked at.
const BYTES_MAX: u64 = 1 << 20;
/// Names that are told.
const NAMES_MAX: usize = 10;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Package {
    dependencies: BTreeMap<String, IgnoredAny>,
}

/// What to tell the publisher of an unpacked bundle whose `package.json` requires what is not in its `node_modules`.
///
/// It may run for all that: where everything is in one file, the list of what it was made of is left over.
pub async fn lacks(app: &Path) -> Option<String> {
    let app = app.to_owned();
    tokio::task::spawn_blocking(move || {
        let file = app.join("package.json");
        let is_small = std::fs::symlink_metadata(&file).is_ok_and(|about| about.is_file() && about.len() <= BYTES_MAX);
        let package: Package = serde_json::from_slice(&std::fs::read(file).ok().filter(|_| is_small)?).ok()?;
        let is_there = |name: &str| app.join("node_modules").join(name).is_dir();
        told(package.dependencies.keys().filter(|name| !is_name(name) || !is_there(name)))
    })
    .await
    .ok()
    .flatten()
}

fn told<'a>(names: impl Iterator<Item = &'a String>) -> Option<String> {
    let names: Vec<&str> = names.map(String::as_str).collect();
    let more = names.len().saturating_sub(NAMES_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let listed = names.iter().take(NAMES_MAX).map(|name| name.chars().filter(|c| !c.is_control()).take(100).collect());
    let listed = listed.collect::<Vec<String>>().join(", ");
    (!names.is_empty()).then(|| {
        format!(
            "package.json requires {listed}{more}, which the bundle does not have, and this server installs no npm packages. \
             If the app does not start, publish it as one file with all it requires, as \
             `npx esbuild app.js --bundle --platform=node --outfile=server.js` makes it"
        )
    })
}

/// `name` or `@scope/name`: leads nowhere but below `node_modules`.
fn is_name(name: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['/', '\\', '\0']);
    match name.strip_prefix('@').and_then(|rest| rest.split_once('/')) {
        Some((scope, name)) => is_part(scope) && is_part(name),
        None => is_part(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_required_and_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(folder.path().join("package.json"), text).unwrap();
        assert_eq!(lacks(folder.path()).await, None);
        std::fs::create_dir_all(folder.path().join("node_modules/@own/there")).unwrap();
        write(r#"{"name": "x", "dependencies": {"@own/there": "1"}, "devDependencies": {"jest": "1"}}"#);
        assert_eq!(lacks(folder.path()).await, None);
        write(r#"{"dependencies": {"@own/there": "1", "express": "^5", "../..": "1", "@x/../..": "1"}}"#);
        let words = lacks(folder.path()).await.unwrap();
        assert!(words.contains("requires ../.., @x/../.., express, which"), "{words}");
        write("no json");
        assert_eq!(lacks(folder.path()).await, None, "npm has said so already, or it will not matter");
    }
}
