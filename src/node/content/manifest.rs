//! `manifest.json`: what a publishing client says of what it sends. Pure.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::mode::{Language, Mode};
use crate::node::cran::name::{is_package, is_version};

/// Its name in a bundle.
pub const NAME: &str = "manifest.json";
/// Bytes of one; R's have the DESCRIPTION of every package.
pub const BYTES_MAX: u64 = 32 << 20;
/// Characters of an entrypoint.
const ENTRYPOINT_MAX: usize = 500;
/// Packages of R.
const PACKAGES_MAX: usize = 2_000;

/// What we want of it, checked, and as rows keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// What kind of content it is, as [`Mode::as_str`] has it.
    pub mode: String,
    /// What is run: a module and an object in it (`app:app`), or a file of the bundle.
    pub entrypoint: Option<String>,
    /// The version of R it was made with.
    pub r: Option<String>,
    /// The version of Python it was made with.
    pub python: Option<String>,
    /// The file of the bundle that says what it requires of Python.
    pub requirements: Option<String>,
    /// It asks for parameters.
    pub has_parameters: bool,
    /// Which code of a notebook is left out of what is shown.
    #[serde(default)]
    pub hides: Hides,
    /// The packages of R it was made with, by name.
    #[serde(default)]
    pub packages: Vec<RPackage>,
    /// Whether they are to be installed for it; `None`: it does not say.
    #[serde(default)]
    pub manages_r: Option<bool>,
}

/// A package of R.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RPackage {
    /// Its name.
    pub name: String,
    /// Its version; `None`: the manifest does not say.
    #[serde(default)]
    pub version: Option<String>,
}

/// Which code of a notebook is left out of what is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hides {
    /// None.
    #[default]
    Nothing,
    /// Of the cells that have the tag `hide_input`.
    Tagged,
    /// Of all cells.
    All,
}

/// As clients write it; what is not known is left out.
#[derive(Debug, Deserialize)]
struct Written {
    #[serde(default)]
    version: Option<i64>,
    metadata: Metadata,
    platform: Option<String>,
    python: Option<Python>,
    jupyter: Option<Jupyter>,
    #[serde(default)]
    files: BTreeMap<String, IgnoredAny>,
    #[serde(default, deserialize_with = "by_name")]
    packages: BTreeMap<String, Package>,
    environment: Option<Environment>,
}

#[derive(Debug, Deserialize)]
struct Package {
    description: Option<Description>,
}

#[derive(Debug, Deserialize)]
struct Description {
    #[serde(rename = "Version")]
    version: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Environment {
    environment_management: Option<Management>,
}

#[derive(Debug, Deserialize)]
struct Management {
    r: Option<bool>,
}

/// An object, which R writes as an empty list where it has nothing.
fn by_name<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, Package>, D::Error> {
    struct ByName;
    impl<'de> Visitor<'de> for ByName {
        type Value = BTreeMap<String, Package>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("packages by name")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut all = BTreeMap::new();
            while let Some((name, package)) = map.next_entry()? {
                all.insert(name, package);
            }
            Ok(all)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(BTreeMap::new())
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(BTreeMap::new())
        }
    }
    from.deserialize_any(ByName)
}

#[derive(Debug, Deserialize)]
struct Metadata {
    appmode: String,
    entrypoint: Option<String>,
    primary_rmd: Option<String>,
    primary_html: Option<String>,
    #[serde(default)]
    has_parameters: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Jupyter {
    hide_all_input: bool,
    hide_tagged_input: bool,
}

#[derive(Debug, Deserialize)]
struct Python {
    version: Option<String>,
    package_manager: Option<PackageManager>,
}

#[derive(Debug, Deserialize)]
struct PackageManager {
    package_file: Option<String>,
}

impl Manifest {
    /// Reads one. `names`: the files of its bundle.
    ///
    /// # Errors
    /// What is wrong with it and how it is mended, in a sentence for whoever publishes.
    pub fn read(bytes: &[u8], names: &HashSet<String>) -> Result<Self, String> {
        let wrong = |e: serde_json::Error| format!("The bundle's manifest.json cannot be read: {e}");
        let Written { version, metadata, platform, python, jupyter, files, packages, environment } =
            serde_json::from_slice(bytes).map_err(wrong)?;
        if version.is_some_and(|version| version != 1) {
            return Err("The bundle's manifest.json is of a version this server does not know; it knows 1".into());
        }
        let Metadata { appmode, entrypoint, primary_rmd, primary_html, has_parameters } = metadata;
        let Some(mode) = Mode::parse(&appmode) else {
            let known: Vec<&str> = Mode::ALL.iter().map(|(_, _, name)| *name).collect();
            return Err(format!(
                "This server does not run content of the kind `{appmode}`; it runs {}",
                known.join(", ")
            ));
        };
        for name in files.keys() {
            if !names.contains(name.strip_prefix("./").unwrap_or(name)) {
                return Err(format!(
                    "The manifest lists `{name}`, which is not in the bundle; write the manifest anew"
                ));
            }
        }
        let primary = match mode {
            Mode::Static => primary_html.or(entrypoint),
            Mode::RmdStatic | Mode::RmdShiny | Mode::QuartoShiny | Mode::QuartoStatic => primary_rmd.or(entrypoint),
            _ => entrypoint,
        };
        let entrypoint = entry(mode, primary.filter(|text| !text.is_empty()), names)?;
        let (python, manager) = match python {
            Some(Python { version, package_manager }) => (version, package_manager),
            None => (None, None),
        };
        let requirements = manager.and_then(|manager| manager.package_file).filter(|name| !name.is_empty());
        if let Some(name) = &requirements
            && !names.contains(name)
        {
            return Err(format!("The manifest names `{name}` for what is required, which is not in the bundle"));
        }
        let short = |text: Option<String>| text.filter(|text| text.len() <= 100 && !text.chars().any(char::is_control));
        Ok(Self {
            mode: mode.as_str().to_owned(),
            entrypoint,
            r: short(platform),
            python: short(python),
            requirements,
            has_parameters: has_parameters.unwrap_or(false),
            hides: match jupyter {
                Some(Jupyter { hide_all_input: true, .. }) => Hides::All,
                Some(Jupyter { hide_tagged_input: true, .. }) => Hides::Tagged,
                _ => Hides::Nothing,
            },
            packages: listed(mode, packages)?,
            manages_r: environment.and_then(|of| of.environment_management).and_then(|of| of.r),
        })
    }

    /// What kind of content it is; one of a newer program's is none this program runs.
    pub fn mode(&self) -> Option<Mode> {
        Mode::parse(&self.mode)
    }
}

/// The packages of R, where they are wanted.
fn listed(mode: Mode, packages: BTreeMap<String, Package>) -> Result<Vec<RPackage>, String> {
    if !matches!(mode.language(), Language::R | Language::Quarto) {
        return Ok(Vec::new());
    }
    if packages.len() > PACKAGES_MAX {
        return Err(format!("The manifest lists more than {PACKAGES_MAX} packages"));
    }
    let checked = |(name, package): (String, Package)| {
        let version = package.description.and_then(|of| of.version);
        if !is_package(&name) || version.as_deref().is_some_and(|version| !is_version(version)) {
            let version = version.map(|version| format!(" {version}")).unwrap_or_default();
            return Err(format!("The manifest lists {:?}, which is no package of R", format!("{name}{version}")));
        }
        Ok(RPackage { name, version })
    };
    packages.into_iter().map(checked).collect()
}

/// What is run, with what a client may leave out.
fn entry(mode: Mode, told: Option<String>, names: &HashSet<String>) -> Result<Option<String>, String> {
    let is_there = |name: &str| names.contains(name);
    let told = told.map(|text| text.strip_prefix("./").map(str::to_owned).unwrap_or(text));
    if let Some(text) = &told
        && (text.len() > ENTRYPOINT_MAX || text.chars().any(char::is_control))
    {
        return Err("The manifest's entrypoint is no name of a file or module".into());
    }
    let missing = |name: &str| format!("The manifest's entrypoint `{name}` is not in the bundle");
    match (mode.language(), mode) {
        (Language::None, _) => {
            let name = told.unwrap_or_else(|| "index.html".to_owned());
            if is_there(&name) { Ok(Some(name)) } else { Err(missing(&name)) }
        }
        (_, Mode::JupyterStatic | Mode::JupyterVoila) => {
            let name = told.ok_or("The manifest names no notebook as its entrypoint")?;
            if is_there(&name) && name.ends_with(".ipynb") { Ok(Some(name)) } else { Err(missing(&name)) }
        }
        (Language::Python, _) => {
            let text = told.unwrap_or_else(|| "app".to_owned());
            if !is_object(&text) {
                return Err(format!(
                    "The manifest's entrypoint `{text}` is none: it is written `module` or `module:object`"
                ));
            }
            Ok(Some(text))
        }
        (Language::R, Mode::Shiny) => {
            if is_there("app.R") || is_there("server.R") || is_there("app.r") || is_there("server.r") {
                Ok(None)
            } else {
                Err("There is neither app.R nor server.R in the bundle".into())
            }
        }
        (Language::R, Mode::Api) => {
            let name = told.unwrap_or_else(|| "plumber.R".to_owned());
            let found = [name.as_str(), "plumber.R", "entrypoint.R"].into_iter().find(|name| is_there(name));
            found.map(|name| Some(name.to_owned())).ok_or_else(|| missing(&name))
        }
        (Language::R | Language::Quarto | Language::Nodejs, _) => match told {
            Some(name) if is_there(&name) => Ok(Some(name)),
            Some(name) => Err(missing(&name)),
            None => {
                let ending = match mode {
                    Mode::Nodejs => ".js",
                    Mode::QuartoShiny | Mode::QuartoStatic => ".qmd",
                    _ => ".Rmd",
                };
                let mut tops: Vec<_> = names.iter().filter(|n| !n.contains('/') && n.ends_with(ending)).collect();
                tops.sort_by_key(|name| (!name.starts_with("index."), (*name).clone()));
                let none = || format!("The manifest names no entrypoint, and there is no `*{ending}` in the bundle");
                tops.first().map(|name| Some((*name).clone())).ok_or_else(none)
            }
        },
    }
}

/// `module`, `pkg.module`, `module:object`: what Python could import, and nothing a shell would understand.
fn is_object(text: &str) -> bool {
    let is_name = |part: &str| {
        !part.is_empty()
            && !part.starts_with(|c: char| c.is_ascii_digit())
            && part.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    let is_path = |path: &str| path.split('.').all(is_name);
    match text.split_once(':') {
        Some((module, object)) => is_path(module) && is_path(object),
        None => is_path(text.strip_suffix(".py").unwrap_or(text)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(manifest: &serde_json::Value, names: &[&str]) -> Result<Manifest, String> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Manifest::read(manifest.to_string().as_bytes(), &names)
    }

    #[test]
    fn what_clients_write_is_understood() {
        let python = json!({"version": 1, "locale": "en_US.UTF-8", "unknown": [1],
            "metadata": {"appmode": "python-fastapi", "entrypoint": "app"},
            "python": {"version": "3.11.7", "package_manager": {"name": "pip", "package_file": "requirements.txt"}},
            "files": {"app.py": {"checksum": "x"}}});
        let manifest = read(&python, &["app.py", "requirements.txt"]).unwrap();
        assert_eq!((manifest.mode(), manifest.entrypoint.as_deref()), (Some(Mode::PythonFastapi), Some("app")));
        assert_eq!(
            (manifest.python.as_deref(), manifest.requirements.as_deref()),
            (Some("3.11.7"), Some("requirements.txt"))
        );
        let r = json!({"version": 1, "platform": "4.2.2", "users": null,
            "packages": {"R6": {"Source": "CRAN", "Repository": null, "description": {"Package": "R6", "Version": "2.5.1",
            "Depends": "R (>= 3.0)"}}, "cli": {}}, "environment": {"environment_management": {"r": false, "python": null}},
            "metadata": {"appmode": "shiny", "primary_rmd": null, "primary_html": null, "has_parameters": false},
            "files": {"app.R": {"checksum": "x"}}});
        let manifest = read(&r, &["app.R", "packrat/packrat.lock"]).unwrap();
        assert_eq!((manifest.r.as_deref(), manifest.entrypoint), (Some("4.2.2"), None));
        let named =
            |name: &str, version: Option<&str>| RPackage { name: name.into(), version: version.map(str::to_owned) };
        assert_eq!(manifest.packages, [named("R6", Some("2.5.1")), named("cli", None)]);
        assert_eq!(manifest.manages_r, Some(false));
        for nothing in [json!(null), json!([]), json!({})] {
            let bare = json!({"packages": nothing, "environment": null, "metadata": {"appmode": "shiny"}});
            let manifest = read(&bare, &["app.R"]).unwrap();
            assert_eq!((manifest.packages.len(), manifest.manages_r), (0, None));
        }
        let html = json!({"metadata": {"appmode": "static", "primary_html": "page.html", "entrypoint": "page.html"}});
        assert_eq!(read(&html, &["page.html"]).unwrap().entrypoint.as_deref(), Some("page.html"));
        let express = json!({"metadata": {"appmode": "python-shiny", "entrypoint": "shiny.express.app:app_2e_py"}});
        assert!(read(&express, &["app.py"]).is_ok());
        let quarto = json!({"metadata": {"appmode": "quarto-static"}});
        assert_eq!(read(&quarto, &["b.qmd", "index.qmd"]).unwrap().entrypoint.as_deref(), Some("index.qmd"));
    }

    #[test]
    fn what_lies_or_misses_something_is_refused_with_its_reason() {
        let of = |appmode: &str, entrypoint: &str| json!({"metadata": {"appmode": appmode, "entrypoint": entrypoint}});
        for (manifest, names, words) in [
            (json!({"metadata": {}}), &[][..], "appmode"),
            (json!([]), &[], "manifest.json cannot be read"),
            (json!({"version": 2, "metadata": {"appmode": "static"}}), &["index.html"], "version"),
            (of("cobol", "x"), &[], "`cobol`; it runs shiny,"),
            (of("static", "no.html"), &["index.html"], "`no.html` is not in the bundle"),
            (of("python-api", "app; rm -rf /"), &[], "is none"),
            (of("python-api", "$(x):app"), &[], "is none"),
            (of("python-api", "../app"), &[], "is none"),
            (of("python-api", "a\nb"), &[], "no name of a file"),
            (of("jupyter-static", "../nb.ipynb"), &["nb.ipynb"], "not in the bundle"),
            (of("shiny", ""), &["ui.R"], "neither app.R nor server.R"),
            (of("rmd-static", ""), &["doc.txt"], "no `*.Rmd`"),
            (
                json!({"metadata": {"appmode": "shiny"}, "packages": {"../x": {}}}),
                &["app.R"],
                "\"../x\", which is no package",
            ),
            (
                json!({"metadata": {"appmode": "shiny"}, "packages": {"R6": {"description": {"Version": "1; x"}}}}),
                &["app.R"],
                "\"R6 1; x\", which is no package",
            ),
            (
                json!({"metadata": {"appmode": "static"}, "files": {"lost.css": {}}}),
                &["index.html"],
                "lists `lost.css`",
            ),
            (
                json!({"metadata": {"appmode": "python-api"}, "python": {"package_manager": {"package_file": "/etc/passwd"}}}),
                &["app.py"],
                "names `/etc/passwd`",
            ),
        ] {
            let refused = read(&manifest, names).unwrap_err();
            assert!(refused.contains(words), "{manifest}: {refused}");
        }
    }
}
