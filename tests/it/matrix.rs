//! Every client people install and publish with, through the TLS proxy, before two nodes on one PostgreSQL.

use std::path::Path;
use std::sync::Arc;

use crate::cran::{build, r};
use crate::harness::{Authority, Folder, Node, Output, Postgres, Proxy, bowline, eventually, get, tools, within};
use crate::packages::{Trusting, base, make, proxy};

/// Two nodes behind a proxy, with the repositories `pypi` and `cran` and a key that may publish.
pub struct Pair {
    pub nodes: [Node; 2],
    pub proxy: Proxy,
    pub client: Trusting,
    pub key: String,
    pub database: Postgres,
}

impl Pair {
    /// `more`: further configuration of both nodes.
    pub async fn start(more: &str) -> Self {
        let folder = Arc::new(Folder::new());
        bowline(&["keygen", folder.path("node.key").to_str().unwrap()]).await.ok();
        Self::start_in(folder, more).await
    }

    /// In a folder that has the key already.
    pub async fn start_in(folder: Arc<Folder>, more: &str) -> Self {
        let database = Postgres::start();
        let more = format!("[database]\nurl = \"{}\"\n{more}", database.url());
        let a = Node::start_in("a", folder, &more).await;
        let b = a.beside("b").await;
        a.command(&["repo", "create", "pypi"]).await;
        a.command(&["repo", "create", "cran", "--type", "cran"]).await;
        let key = a.command(&["key", "create", "--name", "ci", "--scope", "publish"]).await;
        let proxy = proxy(&[&a, &b], &Authority::new()).await;
        let client = Trusting(proxy.folder.path("ca.pem").to_str().unwrap().to_owned());
        let pair = Self { nodes: [a, b], proxy, client, key, database };
        pair.until("/packages/pypi/simple/", "").await;
        pair.until("/packages/cran/latest/src/contrib/PACKAGES", "").await;
        pair
    }

    /// `https://localhost:PORT/packages` of the proxy.
    pub fn packages(&self) -> String {
        format!("{}/packages", base(&self.proxy))
    }

    /// Waits until both nodes have something at a path, with these words in it.
    pub async fn until(&self, path: &str, words: &str) {
        for node in &self.nodes {
            eventually(&format!("{words:?} at {path}"), async || {
                let answer = get(&node.address, path).await;
                (answer.status == 200 && answer.text().contains(words)).then_some(())
            })
            .await;
        }
    }

    /// Publishes files with twine.
    pub async fn twine(&self, files: &[String]) -> Output {
        let upload = format!("{}/pypi/legacy/", self.packages());
        let mut told =
            vec!["upload", "--non-interactive", "--repository-url", &upload, "-u", "__token__", "-p", &self.key];
        told.extend(files.iter().map(String::as_str));
        self.client.runs("twine", &told).await
    }

    /// Publishes an R package with curl.
    pub async fn curl(&self, file: &str, query: &str) -> Output {
        let name = file.rsplit('/').next().unwrap();
        let url = format!("{}/cran/upload/{name}{query}", self.packages());
        let user = format!("__token__:{}", self.key);
        self.client.runs("curl", &["-sS", "-f", "-u", &user, "-T", file, &url]).await
    }

    /// Every Python file's blobs are there and are what its row says. Returns how many rows there are.
    pub async fn check_blobs(&self) -> usize {
        let node = &self.nodes[0];
        let rows = self.database.sql(
            "SELECT sha256, filename, COALESCE(metadata_sha256, '') FROM file WHERE kind IN ('bdist_wheel', 'sdist')",
        );
        for row in rows.lines() {
            let [sha256, filename, metadata] = row.split('|').collect::<Vec<_>>()[..] else { panic!("{row}") };
            let path = format!("/packages/pypi/files/{sha256}/{filename}");
            let file = get(&node.address, &path).await;
            assert_eq!((file.status, digest(&file.body).as_str()), (200, sha256), "{filename}");
            if !metadata.is_empty() {
                let beside = get(&node.address, &format!("{path}.metadata")).await;
                assert_eq!((beside.status, digest(&beside.body).as_str()), (200, metadata), "{filename}");
            }
        }
        rows.lines().count()
    }
}

/// SHA-256, hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What `CONTENT` is in these modules below a folder.
async fn contents(client: &Trusting, folder: &str, modules: &[&str]) -> String {
    let all: Vec<_> = modules.iter().map(|module| format!("{module}.CONTENT")).collect();
    let text =
        format!("import sys; sys.path.insert(0, {folder:?}); import {}; print({})", modules.join(", "), all.join(", "));
    client.runs("python3", &["-c", &text]).await.ok().stdout.trim_end().to_owned()
}

#[test]
fn every_python_client_publishes_and_installs_through_the_proxy() {
    within(240, async {
        let pair = Pair::start("").await;
        let (client, files) = (&pair.client, Folder::new());
        let (upload, index) =
            (format!("{}/pypi/legacy/", pair.packages()), format!("{}/pypi/simple/", pair.packages()));

        let alpha = make(&files, "Alpha.Pkg", "1.0", "twine").await;
        pair.twine(&alpha).await.ok();
        let beta = make(&files, "beta", "2.0", "uv").await;
        let told = ["publish", "--native-tls", "--publish-url", &upload, "--token", &pair.key, "--no-cache"];
        client.runs("uv", &[&told[..], &[&beta[0], &beta[1]]].concat()).await.ok();
        let poetry = Poetry::new(&files, client, "gamma", &index);
        for file in make(&files, "gamma", "3.0", "poetry").await {
            poetry.take(&file);
        }
        let publish = ["publish", "--repository", "ours", "--username", "__token__", "--password", &pair.key];
        poetry.runs(&upload, &publish).await.ok();
        // Again is no harm, other bytes are.
        poetry.runs(&upload, &publish).await.ok();
        make(&files, "gamma", "3.0", "other").await;
        poetry.take(files.path("gamma-3.0.tar.gz").to_str().unwrap());
        let refused = poetry.runs(&upload, &publish).await;
        let words = format!("{}{}", refused.stdout, refused.stderr);
        assert!(refused.code == Some(1) && words.contains("File already exists"), "{words}");
        pair.until("/packages/pypi/simple/gamma/", "gamma-3.0.tar.gz").await;

        let modules = ["alpha_pkg", "beta", "gamma"];
        let wanted = ["alpha-pkg", "beta", "gamma"];
        for (environment, version) in [("pip", "pip 2"), ("pip-23.0.1", "pip 23.0.1 ")] {
            let python = tools::client(environment, "python");
            let told = client.runs_at(&python, &["-m", "pip", "--version"]).await.ok();
            assert!(told.stdout.starts_with(version), "{}", told.stdout);
            // The second time from what it keeps, and asking whether that still holds.
            let cache = files.path(&format!("cache-{environment}")).to_str().unwrap().to_owned();
            for round in ["1", "2"] {
                let to = files.path(&format!("{environment}-{round}")).to_str().unwrap().to_owned();
                let told = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--cache-dir", &cache];
                let what = ["--index-url", &index, "--target", &to];
                client.runs_at(&python, &[&told[..], &what, &wanted].concat()).await.ok();
                assert_eq!(contents(client, &to, &modules).await, "twine uv poetry", "{environment}");
            }
            let to = files.path(&format!("{environment}-download")).to_str().unwrap().to_owned();
            let told = ["-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-cache-dir", "--no-deps"];
            let what = ["--index-url", &index, "--no-binary", ":none:", "-d", &to, "alpha-pkg==1.0"];
            client.runs_at(&python, &[&told[..], &what].concat()).await.ok();
            let name = "Alpha.Pkg-1.0-py3-none-any.whl".replace("Alpha.Pkg", "alpha_pkg");
            assert_eq!(
                std::fs::read(Path::new(&to).join(name)).unwrap(),
                std::fs::read(&alpha[0]).unwrap(),
                "{environment}"
            );
        }
        for round in ["1", "2"] {
            let (to, cache) = (files.path(&format!("uv-{round}")), files.path("cache-uv"));
            let to = to.to_str().unwrap();
            let told = ["pip", "install", "-q", "--native-tls", "--cache-dir", cache.to_str().unwrap()];
            let what = ["--index-url", &index, "--target", to];
            client.runs("uv", &[&told[..], &what, &wanted].concat()).await.ok();
            assert_eq!(contents(client, to, &modules).await, "twine uv poetry");
        }

        let site = Poetry::new(&files, client, "site", &index);
        site.runs(&upload, &["install"]).await.ok();
        assert_eq!(site.imports(&modules).await, "twine uv poetry");
        let lock = std::fs::read_to_string(site.project.join("poetry.lock")).unwrap();
        let sha256 = digest(&std::fs::read(&alpha[0]).unwrap());
        assert!(lock.contains(&index[..index.len() - 1]) && lock.contains(&sha256), "{lock}");
    });
}

/// poetry with a project, a cache and a configuration of its own.
struct Poetry<'a> {
    client: &'a Trusting,
    home: std::path::PathBuf,
    project: std::path::PathBuf,
}

impl<'a> Poetry<'a> {
    /// A project that needs what is in the index `ours`, and has no package but what it is given.
    fn new(files: &Folder, client: &'a Trusting, name: &str, index: &str) -> Self {
        let needs = match name {
            "site" => "\"alpha-pkg>=1\", \"beta\", \"gamma>=3,<4\"",
            _ => "",
        };
        let text = format!(
            "[project]\nname = \"{name}\"\nversion = \"3.0\"\nrequires-python = \">=3.8\"\ndependencies = [{needs}]\n\
             [tool.poetry]\npackage-mode = {}\n\
             [[tool.poetry.source]]\nname = \"ours\"\nurl = \"{index}\"\npriority = \"primary\"\n",
            name != "site"
        );
        files.write(&format!("poetry-{name}/pyproject.toml"), text);
        Self { client, home: files.path("poetry-home"), project: files.path(&format!("poetry-{name}")) }
    }

    /// Puts a file where it publishes from.
    fn take(&self, file: &str) {
        let dist = self.project.join("dist");
        std::fs::create_dir_all(&dist).unwrap();
        std::fs::copy(file, dist.join(file.rsplit('/').next().unwrap())).unwrap();
    }

    async fn runs(&self, upload: &str, arguments: &[&str]) -> Output {
        let own = |name: &str, folder: &str| format!("{name}={}", self.home.join(folder).display());
        let mut all = vec![
            own("POETRY_CONFIG_DIR", "config"),
            own("POETRY_DATA_DIR", "data"),
            own("POETRY_CACHE_DIR", "cache"),
            "POETRY_VIRTUALENVS_IN_PROJECT=true".to_owned(),
            "PYTHON_KEYRING_BACKEND=keyring.backends.null.Keyring".to_owned(),
            format!("POETRY_REPOSITORIES_OURS_URL={upload}"),
            tools::client("poetry", "poetry").to_str().unwrap().to_owned(),
            "--no-interaction".to_owned(),
            format!("--project={}", self.project.display()),
        ];
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self.client.runs("env", &all.iter().map(String::as_str).collect::<Vec<_>>()).await
    }

    /// What `CONTENT` is in these modules of the project's environment.
    async fn imports(&self, modules: &[&str]) -> String {
        let folder = std::fs::read_dir(self.project.join(".venv/lib")).unwrap().next().unwrap().unwrap().path();
        contents(self.client, folder.join("site-packages").to_str().unwrap(), modules).await
    }
}

#[test]
fn r_lists_downloads_and_installs_source_and_binary_through_the_proxy() {
    within(180, async {
        let pair = Pair::start("").await;
        let (client, files) = (&pair.client, Folder::new());
        publish_r(&pair, &files).await;
        let latest = format!("{}/cran/latest", pair.packages());
        let to = files.path("downloads");
        std::fs::create_dir(&to).unwrap();
        let text = format!(
            "ap <- available.packages(repos = '{latest}'); stopifnot(setequal(rownames(ap), c('tinydep', 'tinyr'))); \
             got <- download.packages(c('tinyr', 'tinydep'), {to:?}, repos = '{latest}', type = 'source', quiet = TRUE); \
             stopifnot(identical(unname(tools::md5sum(got[, 2])), unname(ap[got[, 1], 'MD5sum'])))"
        );
        r(client, &text).await.ok();
        for (repository, kind) in
            [(latest.clone(), "source"), (format!("{}/cran/__linux__/bookworm/latest", pair.packages()), "binary")]
        {
            let library = Folder::new();
            let root = library.root().to_str().unwrap();
            let text = format!(
                "options(HTTPUserAgent = sprintf('R/%s R (%s)', getRversion(), paste(getRversion(), R.version$platform, R.version$arch, R.version$os))); \
                 .libPaths('{root}'); install.packages('tinyr', repos = '{repository}'); cat(tinyr::content(), tinydep::content())"
            );
            let done = r(client, &text).await.ok();
            assert!(done.stdout.ends_with("tinyr 1.0 tinydep 0.1"), "{done:?}");
            assert!(done.stderr.contains(&format!("installing *{kind}* package ‘tinydep’")), "{done:?}");
        }
    });
}

/// Two packages, of which one needs the other, which is there as a binary too.
pub async fn publish_r(pair: &Pair, files: &Folder) {
    let dependency = build(files, "tinydep", "0.1", "", true).await;
    let package = build(files, "tinyr", "1.0", "tinydep", false).await;
    pair.curl(&dependency[0], "").await.ok();
    pair.curl(&dependency[1], "?distribution=bookworm").await.ok();
    pair.curl(&package[0], "").await.ok();
    pair.until("/packages/cran/latest/src/contrib/PACKAGES", "tinyr").await;
}

#[test]
fn renv_installs_records_and_restores_through_the_proxy() {
    within(180, async {
        let library = tools::top().join(".venv-clients/R");
        let nobody = Trusting("/dev/null".to_owned());
        let has = r(&nobody, &format!(".libPaths(c({library:?}, .libPaths())); library(renv)")).await;
        if has.code != Some(0) {
            eprintln!("renv is not installed (`.ci/setup test` tries to): nothing was looked at");
            return;
        }
        let pair = Pair::start("").await;
        let files = Folder::new();
        pair.curl(&build(&files, "tinyr", "0.9", "", false).await[0], "").await.ok();
        publish_r(&pair, &files).await;
        let (project, root) = (files.path("project"), files.path("renv"));
        std::fs::create_dir(&project).unwrap();
        let [one, two, old] = ["one", "two", "old"].map(|name| {
            std::fs::create_dir(files.path(name)).unwrap();
            files.path(name)
        });
        let text = format!(
            ".libPaths(c({library:?}, .libPaths())); Sys.setenv(RENV_PATHS_ROOT = {root:?}); \
             options(repos = c(CRAN = '{}/cran/latest'), renv.consent = TRUE); setwd({project:?}); \
             renv::install('tinyr', library = {one:?}, project = {project:?}, prompt = FALSE); \
             renv::snapshot(library = {one:?}, project = {project:?}, packages = 'tinyr', prompt = FALSE); \
             Sys.setenv(RENV_PATHS_ROOT = paste0({root:?}, '-anew')); \
             renv::restore(library = {two:?}, project = {project:?}, prompt = FALSE); \
             renv::install('tinyr@0.9', library = {old:?}, project = {project:?}, prompt = FALSE)",
            pair.packages()
        );
        r(&pair.client, &text).await.ok();
        for (folder, version) in [(&one, "1.0"), (&two, "1.0"), (&old, "0.9")] {
            let said = r(&nobody, &format!("cat(as.character(packageVersion('tinyr', lib.loc = {folder:?})))")).await;
            assert_eq!(said.ok().stdout, version);
        }
        assert!(std::fs::read_to_string(project.join("renv.lock")).unwrap().contains("\"tinydep\""));
    });
}
