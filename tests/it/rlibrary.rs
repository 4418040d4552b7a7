//! R libraries: content gets the packages its bundle lists, in the versions it lists, from this server's own repository.

use serde_json::{Value, json};

use crate::cran::{build, tarball};
use crate::harness::{Authority, Client, Folder, Node, Output, Response, eventually, get_as, run, within};
use crate::packages::proxy;
use crate::rsconnect::{R, path};

/// A Shiny app that shows which version of `tinypk` it has, and where R looks.
const APP: &str = "library(shiny)\n\
    ui <- fluidPage(p(tinypk::content()), p(paste('libraries:', paste(.libPaths(), collapse = ' '))))\n\
    shinyApp(ui, function(input, output, session) {})\n";

/// A node with a repository of small packages, and who publishes there.
struct Site {
    node: Node,
    secret: String,
}

impl Site {
    async fn start() -> Self {
        let node = Node::start("a", "").await;
        node.command(&["repo", "create", "cran", "--type", "cran"]).await;
        let secret = node.command(&["key", "create", "--admin", "--name", "ann"]).await;
        Self { node, secret }
    }

    /// Adds packages to the repository.
    async fn adds(&self, files: &[String]) {
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        self.node.command(&[&["add", "cran"][..], &files].concat()).await;
    }

    async fn page(&self, at: &str) -> Response {
        let fields = [("authorization", format!("Key {}", self.secret)), ("accept", "text/html".to_owned())];
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        get_as(&self.node.address, at, &fields).await
    }

    async fn api(&self, method: &str, path: &str, body: &[u8]) -> Value {
        let authorization = format!("Key {}", self.secret);
        let fields = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        let path = format!("/__api__/v1{path}");
        let answer = Client::tcp(&self.node.address).await.request(method, &path, &fields, body).await;
        assert!((200..300).contains(&answer.status), "{method} {path}: {}", answer.text());
        answer.json()
    }

    /// Content with these settings.
    async fn content(&self, settings: Value) -> String {
        self.api("POST", "/content", settings.to_string().as_bytes()).await["guid"].as_str().unwrap().to_owned()
    }

    /// Deploys an app with this manifest, as rsconnect writes it; the task at its end.
    async fn deploys(&self, guid: &str, app: &str, manifest: &Value) -> Value {
        let bundle = tarball(&[("manifest.json", &manifest.to_string()), ("app.R", app)]);
        let number = self.api("POST", &format!("/content/{guid}/bundles"), &bundle).await["id"].clone();
        let wanted = json!({ "bundle_id": number }).to_string();
        let task = self.api("POST", &format!("/content/{guid}/deploy"), wanted.as_bytes()).await["task_id"].clone();
        eventually("the end of the task", async || {
            let path = format!("/tasks/{}?first=0&wait=5", task.as_str().unwrap());
            let task = self.api("GET", &path, b"").await;
            (task["finished"] == true).then_some(task)
        })
        .await
    }
}

/// A manifest of a Shiny app with these packages, in these versions.
fn manifest(packages: &[(&str, &str)]) -> Value {
    let packages = packages.iter().map(|(name, version)| {
        let description = json!({ "Package": name, "Version": version, "License": "GPL-2" });
        ((*name).to_owned(), json!({ "Source": "CRAN", "Repository": null, "description": description }))
    });
    json!({
        "version": 1, "locale": "C", "platform": "4.2.2",
        "metadata": { "appmode": "shiny", "primary_rmd": null, "primary_html": null, "has_parameters": false },
        "packages": packages.collect::<serde_json::Map<_, _>>(),
        "files": { "app.R": { "checksum": "x" } }, "users": null,
    })
}

fn said(output: &Output) -> String {
    format!("{}{}", output.stdout, output.stderr)
}

/// The packages with `tinypk` in this version, installed where R finds them: their source tarballs, the first one's binary, and
/// the library.
async fn installed(folder: &Folder, version: &str) -> (Vec<String>, String) {
    let dependency = build(folder, "tinydep", "0.1", "", true).await;
    let package = build(folder, "tinypk", version, "tinydep", true).await;
    (
        vec![dependency[0].clone(), package[0].clone(), dependency[1].clone()],
        folder.path("library").to_str().unwrap().to_owned(),
    )
}

#[test]
fn contents_of_one_node_use_the_versions_they_were_made_with() {
    within(300, async {
        let site = Site::start().await;
        let ca = Authority::new();
        let proxy = proxy(&[&site.node], &ca).await;
        let folders = [Folder::new(), Folder::new(), Folder::new()];
        let (first, first_library) = installed(&folders[0], "1.0").await;
        let (second, second_library) = installed(&folders[1], "2.0").await;
        let (_, third_library) = installed(&folders[2], "3.0").await;
        site.adds(&first[..2]).await;
        site.adds(&second[1..2]).await;
        // What needs no compiler here is taken as it is.
        let codename = "sed -n 's/^VERSION_CODENAME=//p' /etc/os-release | grep . || echo none";
        let codename = run("sh".as_ref(), &["-c", codename], "").await.ok().stdout;
        site.node.command(&["add", "cran", "--distribution", codename.trim(), &first[2]]).await;
        let kind = if codename.trim() == "none" { "*source*" } else { "*binary*" };
        let brought = format!("installing {kind} package");
        let [one, two, report] = [Folder::new(), Folder::new(), Folder::new()];
        one.write("app.R", APP);
        two.write("app.R", APP);
        let document = report.write(
            "report.Rmd",
            "---\ntitle: Report\noutput: html_document\n---\n\n`r tinypk::content()` of `r .libPaths()[[1]]`.\n",
        );
        let app = |folder: &Folder, name: &str| format!("app={}={name}", folder.root().display());
        let (one_step, two_step) = (app(&one, "one"), app(&two, "two"));
        let report_step = format!("rmd={}=report", document.display());

        // The first one brings the package and what that needs, line by line.
        let mut r = R::new(&proxy);
        r.library = first_library;
        let told = r.publishes(&site.secret, &[&one_step, "list"]).await.ok();
        for words in [
            "one TRUE",
            &brought,
            "Installing tinydep 0.1",
            "Installing tinypk 1.0",
            "DONE (tinypk)",
            "as installed here:",
        ] {
            assert!(said(&told).contains(words), "{words}: {}", said(&told));
        }
        let one_at = path(&told, "one");
        let seen = site.page(&one_at).await.text();
        assert!(seen.contains("tinypk 1.0"), "{seen}");
        let libraries = seen.split("libraries: ").nth(1).unwrap().split('<').next().unwrap();
        assert!(libraries.starts_with("/library ") && !libraries.contains("site-library"), "{libraries}");

        // The second one brings what is new in it, and both run.
        r.library = second_library.clone();
        let told = r.publishes(&site.secret, &[&two_step, "list"]).await.ok();
        assert!(said(&told).contains("Installing tinypk 2.0"), "{}", said(&told));
        assert!(!said(&told).contains("Installing tinydep"), "{}", said(&told));
        assert!(said(&told).contains("1 of 2 packages were installed before"), "{}", said(&told));
        let two_at = path(&told, "two");
        assert!(site.page(&two_at).await.text().contains("tinypk 2.0"));
        assert!(site.page(&one_at).await.text().contains("tinypk 1.0"));

        // A report has them too; what it has in common with the others is there.
        let told = r.publishes(&site.secret, &[&report_step, "list"]).await.ok();
        assert!(said(&told).contains("report TRUE") && !said(&told).contains("Installing"), "{}", said(&told));
        let seen = site.page(&path(&told, "report")).await.text();
        assert!(seen.contains("tinypk 2.0 of /library."), "{seen}");

        // Once more, with other code and the same packages: nothing is installed or made.
        two.write("app.R", APP.replace("fluidPage(", "fluidPage(h1('anew'), "));
        let told = r.publishes(&site.secret, &[&two_step]).await.ok();
        assert!(said(&told).contains("two TRUE") && !said(&told).contains("Installing"), "{}", said(&told));
        assert!(!said(&told).contains("Making the R library"), "{}", said(&told));
        eventually("the new one", async || {
            let seen = site.page(&two_at).await.text();
            (seen.contains("anew") && seen.contains("tinypk 2.0")).then_some(())
        })
        .await;

        // A version nobody has is refused in the client's own output, and what runs goes on running.
        r.library = third_library;
        let told = r.publishes(&site.secret, &[&one_step]).await;
        assert!(told.stdout.contains("one FALSE"), "{told:?}");
        for words in ["`tinypk 3.0`", "in the repository `cran`", "publish them there"] {
            assert!(said(&told).contains(words), "{words}: {}", said(&told));
        }
        assert!(site.page(&one_at).await.text().contains("tinypk 1.0"));
    });
}

#[test]
fn a_package_that_does_not_build_says_why_and_replaces_nothing() {
    within(180, async {
        let site = Site::start().await;
        let files = Folder::new();
        let good = build(&files, "tinydep", "0.1", "", false).await;
        let description = |name: &str, version: &str| {
            format!(
                "Package: {name}\nVersion: {version}\nTitle: T\nDescription: D.\nLicense: GPL-2\nAuthor: A\n\
                 Maintainer: A <a@example.org>\nDepends: R (>= 3.0)\n"
            )
        };
        let package = |name: &str, version: &str, more: &str, code: &str| {
            let bytes = tarball(&[
                (&format!("{name}/DESCRIPTION"), &(description(name, version) + more)),
                (&format!("{name}/NAMESPACE"), "exportPattern('.')\n"),
                (&format!("{name}/R/code.R"), code),
            ]);
            files.write(&format!("{name}_{version}.tar.gz"), bytes).to_str().unwrap().to_owned()
        };
        // What it does while it is installed: it is in a sandbox, so this finds nothing.
        let folder = site.node.folder.root().to_str().unwrap().to_owned();
        let nosy = format!(
            "found <- c(file.exists('{folder}'), file.exists('/etc/passwd'), \
             !inherits(try(suppressWarnings(socketConnection(port = {}, timeout = 1)), silent = TRUE), 'try-error'), \
             requireNamespace('tinydep', quietly = TRUE), dir.exists('/usr/lib/R/site-library/shiny') && \
             requireNamespace('shiny', quietly = TRUE))\n",
            site.node.address.rsplit(':').next().unwrap()
        );
        site.adds(&[
            good[0].clone(),
            package("nosy", "1.0", "", &nosy),
            package("broken", "1.0", "", "stop('no luck today')\n"),
            package("needy", "1.0", "Imports: tinydep\n", "x <- tinydep::content()\n"),
        ])
        .await;

        // The packages of R Shiny are those of this machine, whichever versions they are.
        let script = "need <- c('shiny', unlist(tools::package_dependencies('shiny', installed.packages(), recursive = TRUE))); \
                      all <- installed.packages()[, c('Version', 'Priority')]; \
                      need <- setdiff(need, rownames(all)[all[, 'Priority'] %in% 'base']); \
                      cat(sprintf('%s %s', need, all[need, 'Version']), sep = '\\n')";
        let shiny = run("Rscript".as_ref(), &["--vanilla", "-e", script], "").await.ok().stdout;
        let mut packages: Vec<(&str, &str)> = shiny.lines().filter_map(|line| line.split_once(' ')).collect();
        packages.push(("tinydep", "0.1"));
        packages.push(("parallel", "4.2.2"));
        packages.push(("nosy", "1.0"));
        let guid = site.content(json!({ "name": "x" })).await;
        let at = format!("/content/{guid}/");
        let app = "ui <- shiny::fluidPage('found', paste(nosy::found, collapse = ' '))\n\
                   shiny::shinyApp(ui, function(input, output, session) {})\n";
        let task = site.deploys(&guid, app, &manifest(&packages)).await;
        assert_eq!(task["code"], 0, "{task}");
        let seen = site.page(&at).await.text();
        assert!(seen.contains("FALSE FALSE FALSE FALSE FALSE"), "{seen}");

        for (name, version, words) in [
            ("broken", "1.0", &["no luck today", "`broken 1.0` cannot be installed"][..]),
            ("needy", "1.0", &["`needy` but not `tinydep`"]),
            ("absent", "1.0", &["`absent 1.0`", "repository `cran`"]),
            ("tinydep", "9.0", &["`tinydep 9.0`", "repository `cran`"]),
        ] {
            let mut other: Vec<(&str, &str)> =
                packages.iter().filter(|(name, _)| *name != "tinydep" && *name != "nosy").copied().collect();
            other.push((name, version));
            let task = site.deploys(&guid, "stop('never begun')\n", &manifest(&other)).await;
            assert_ne!(task["code"], 0, "{task}");
            for word in words {
                assert!(task.to_string().contains(word), "{word}: {task}");
            }
            assert!(!task.to_string().contains("never begun"), "{task}");
        }
        assert!(site.page(&at).await.text().contains("found"), "what ran still runs");

        // Whoever wants none of it has what is installed on the machine, whatever is listed.
        let plain = "ui <- shiny::fluidPage(paste(.libPaths(), collapse = ' '))\n\
                     shiny::shinyApp(ui, function(input, output, session) {})\n";
        let mut unmanaged = manifest(&[("absent", "1.0")]);
        unmanaged["environment"] = json!({ "environment_management": { "r": false, "python": true } });
        let task = site.deploys(&guid, plain, &unmanaged).await;
        assert_eq!(task["code"], 0, "{task}");
        let told = site.api("GET", &format!("/content/{guid}"), b"").await;
        assert_eq!(told["r_environment_management"], false);
        eventually("the machine's own library", async || {
            let seen = site.page(&at).await.text();
            (seen.contains("/usr/lib/R") && !seen.contains("/library ")).then_some(())
        })
        .await;
        let settings = json!({ "name": "y", "default_r_environment_management": false });
        let other = site.content(settings).await;
        let task = site.deploys(&other, plain, &manifest(&[("absent", "1.0")])).await;
        assert_eq!(task["code"], 0, "{task}");
        unmanaged["environment"]["environment_management"]["r"] = json!(true);
        let task = site.deploys(&other, plain, &unmanaged).await;
        assert!(task["code"] != 0 && task.to_string().contains("`absent 1.0`"), "the bundle's word counts: {task}");
    });
}
