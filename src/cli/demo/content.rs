//! The demo's content, published through the proxy by the requests that publishing clients make.

use std::path::Path;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::publish::PublishError;
use super::report::Content;
use crate::telemetry::Causes;

/// Something to publish.
#[derive(Clone, Copy, Debug)]
pub(super) struct Example {
    /// Unique.
    pub(super) name: &'static str,
    /// For people.
    title: &'static str,
    /// As manifests write it.
    mode: &'static str,
    entrypoint: Option<&'static str>,
    needs: Needs,
    files: &'static [(&'static str, &'static str)],
}

/// What has to be there for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    Nothing,
    Wheels,
    R,
}

/// All of them.
pub(super) const ALL: [Example; 5] = [
    Example {
        name: "shiny-python",
        title: "Shiny for Python",
        mode: "python-shiny",
        entrypoint: Some("app"),
        needs: Needs::Wheels,
        files: &[("app.py", include_str!("apps/shiny-python/app.py")), ("requirements.txt", "shiny\n")],
    },
    Example {
        name: "shiny-r",
        title: "Shiny for R",
        mode: "shiny",
        entrypoint: None,
        needs: Needs::R,
        files: &[("app.R", include_str!("apps/shiny-r/app.R"))],
    },
    Example {
        name: "fastapi",
        title: "An API in Python",
        mode: "python-fastapi",
        entrypoint: Some("app"),
        needs: Needs::Wheels,
        files: &[("app.py", include_str!("apps/fastapi/app.py")), ("requirements.txt", "fastapi\n")],
    },
    Example {
        name: "static",
        title: "A static site",
        mode: "static",
        entrypoint: Some("index.html"),
        needs: Needs::Nothing,
        files: &[
            ("index.html", include_str!("apps/site/index.html")),
            ("style.css", include_str!("apps/site/style.css")),
        ],
    },
    Example {
        name: "notebook",
        title: "A scheduled report",
        mode: "jupyter-static",
        entrypoint: Some("report.ipynb"),
        needs: Needs::Wheels,
        files: &[
            ("report.ipynb", include_str!("apps/notebook/report.ipynb")),
            ("requirements.txt", "nbconvert\nipykernel\n"),
        ],
    },
];

/// For one answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// For one deployment: environments are made.
const DEPLOYED_WITHIN: Duration = Duration::from_secs(300);
/// How often the report is rendered.
const SCHEDULE: &str = "{\"N\":5}";

/// Publishes those for which all is there; what cannot be is left out, and `say` hears why.
///
/// # Errors
/// No client can be made.
pub(super) async fn all(
    url: &str,
    ca: &Path,
    key: &str,
    has_wheels: bool,
    has_r: bool,
    say: impl Fn(&str),
) -> Result<Vec<Content>, PublishError> {
    let client = super::publish::client(ca)?;
    let api = Api { client, url, key };
    let fits = |example: &&Example| match example.needs {
        Needs::Nothing => true,
        Needs::Wheels => has_wheels,
        Needs::R => has_r,
    };
    let wanted: Vec<&Example> = ALL.iter().filter(fits).collect();
    let done = futures_util::future::join_all(wanted.iter().map(|example| api.publish(example))).await;
    let mut all = Vec::new();
    for (example, done) in wanted.iter().zip(done) {
        match done {
            Ok(guid) => all.push(Content {
                name: example.name,
                title: example.title,
                url: format!("{url}/content/{guid}/"),
                guid: Some(guid),
            }),
            Err(why) => say(&format!("Without \"{}\": {why}", example.title)),
        }
    }
    Ok(all)
}

/// The API of the nodes, through the proxy.
struct Api<'a> {
    client: Client,
    url: &'a str,
    key: &'a str,
}

impl Api<'_> {
    /// Its guid.
    async fn publish(&self, example: &Example) -> Result<String, String> {
        let guid = self.content(example).await?;
        let bundle = bundle(example).map_err(|e| e.to_string())?;
        let path = format!("/v1/content/{guid}/bundles");
        let bundle = self.ask(Method::POST, &path, "application/gzip", bundle).await?;
        let deploy = json!({ "bundle_id": bundle["id"] });
        let task = self.json(Method::POST, &format!("/v1/content/{guid}/deploy"), &deploy).await?;
        let task = task["task_id"].as_str().unwrap_or_default().to_owned();
        tokio::time::timeout(DEPLOYED_WITHIN, self.deployed(&task)).await.map_err(|_| "it takes too long")??;
        if example.mode == "jupyter-static" {
            self.schedule(&guid).await?;
        }
        Ok(guid)
    }

    /// The content of its name: that of an earlier demo, or new.
    async fn content(&self, example: &Example) -> Result<String, String> {
        // The key of an earlier demo was another one, and so the owner.
        let all = self.json(Method::GET, "/v1/content", &Value::Null).await?;
        let content = match all.as_array().into_iter().flatten().find(|content| content["name"] == example.name) {
            Some(content) => content.clone(),
            None => {
                let wish = json!({ "name": example.name, "title": example.title, "access_type": "all" });
                self.json(Method::POST, "/v1/content", &wish).await?
            }
        };
        content["guid"].as_str().map(str::to_owned).ok_or_else(|| format!("an answer without a guid: {content}"))
    }

    async fn deployed(&self, task: &str) -> Result<(), String> {
        let (mut first, mut said) = (0, Vec::new());
        loop {
            let path = format!("/v1/tasks/{task}?first={first}&wait=5");
            let told = self.json(Method::GET, &path, &Value::Null).await?;
            said.extend(told["output"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
            first = told["last"].as_i64().unwrap_or(first);
            if told["finished"] != true {
                continue;
            }
            if told["code"] == 0 {
                return Ok(());
            }
            let last = said.iter().rev().take(5).rev().map(|line| format!("\n    {line}")).collect::<String>();
            return Err(format!("{}{last}", told["error"].as_str().unwrap_or_default()));
        }
    }

    async fn schedule(&self, guid: &str) -> Result<(), String> {
        let variants = self.json(Method::GET, &format!("/applications/{guid}/variants"), &Value::Null).await?;
        let id = &variants[0]["id"];
        let there = self.json(Method::GET, &format!("/variants/{id}/schedules"), &Value::Null).await?;
        if there.get(0).is_none() {
            let wish = json!({ "variant_id": id, "type": "minute", "schedule": SCHEDULE, "activate": true });
            self.json(Method::POST, "/schedules", &wish).await?;
        }
        Ok(())
    }

    async fn json(&self, method: Method, path: &str, body: &Value) -> Result<Value, String> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.ask(method, path, "application/json", body).await
    }

    async fn ask(&self, method: Method, path: &str, kind: &str, body: Vec<u8>) -> Result<Value, String> {
        let request = self.client.request(method, format!("{}/__api__{path}", self.url)).timeout(TIMEOUT);
        let request = request.header("Authorization", format!("Key {}", self.key)).header("Content-Type", kind);
        let unsent = |error: reqwest::Error| Causes(&error).to_string();
        let response = request.body(body).send().await.map_err(unsent)?;
        let status = response.status();
        let text = response.text().await.map_err(unsent)?;
        let told: Value = serde_json::from_str(&text).unwrap_or_default();
        if status.is_success() {
            return Ok(told);
        }
        Err(format!("{status}: {}", told["error"].as_str().unwrap_or(&text)))
    }
}

/// A `.tar.gz` with a manifest, as rsconnect makes it.
fn bundle(example: &Example) -> std::io::Result<Vec<u8>> {
    let files: serde_json::Map<String, Value> =
        example.files.iter().map(|(name, _)| ((*name).to_owned(), json!({}))).collect();
    let mut manifest = json!({
        "version": 1,
        "metadata": { "appmode": example.mode, "entrypoint": example.entrypoint },
        "files": files,
    });
    if example.mode == "static" {
        manifest["metadata"]["primary_html"] = json!(example.entrypoint);
    }
    if example.needs == Needs::Wheels {
        manifest["python"] =
            json!({ "version": null, "package_manager": { "name": "pip", "package_file": "requirements.txt" } });
    }
    let manifest = manifest.to_string();
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (name, text) in example.files.iter().copied().chain([("manifest.json", &*manifest)]) {
        let mut head = tar::Header::new_gnu();
        head.set_size(text.len() as u64);
        head.set_mode(0o644);
        tar.append_data(&mut head, name, text.as_bytes())?;
    }
    tar.into_inner()?.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn every_example_is_a_bundle_that_nodes_take() {
        for example in &ALL {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bundle(example).unwrap()).unwrap();
            std::io::Seek::rewind(&mut file).unwrap();
            let manifest = crate::node::content::bundle::examine(file, 1 << 20).unwrap();
            assert_eq!(manifest.mode, example.mode);
        }
    }
}
