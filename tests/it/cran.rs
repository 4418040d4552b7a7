//! R packages: what is uploaded through the TLS proxy, real R installs from any node.

use crate::harness::{Authority, Folder, Node, Postgres, eventually, get, run, script, tool, within};
use crate::packages::{Trusting, base, proxy};

/// A package's source tarball in this folder, and its binary on request.
pub async fn build(folder: &Folder, name: &str, version: &str, imports: &str, binary: bool) -> Vec<String> {
    let script = script("package.R");
    let root = folder.root().to_str().unwrap();
    let kind = if binary { "binary" } else { "source" };
    let done = run(&tool("Rscript"), &[&script, root, name, version, imports, kind], "").await.ok();
    done.stdout.lines().map(str::to_owned).collect()
}

pub async fn r(client: &Trusting, expression: &str) -> crate::harness::Output {
    client.runs("Rscript", &["--vanilla", "-e", expression]).await
}

#[test]
fn what_curl_uploads_r_installs_as_source_and_as_binary_from_two_nodes_on_postgres() {
    within(180, async {
        let database = Postgres::start();
        let a = Node::start("a", &format!("[database]\nurl = \"{}\"\n", database.url())).await;
        let b = a.beside("b").await;
        a.command(&["repo", "create", "cran", "--type", "cran"]).await;
        let key = a.command(&["key", "create", "--scope", "publish"]).await;
        let ca = Authority::new();
        let proxy = proxy(&[&a, &b], &ca).await;
        let client = Trusting(proxy.folder.path("ca.pem").to_str().unwrap().to_owned());
        let cran = format!("{}/packages/cran", base(&proxy));
        for node in [&a, &b] {
            eventually("the repository", async || {
                (get(&node.address, "/packages/cran/latest/src/contrib/PACKAGES").await.status == 200).then_some(())
            })
            .await;
        }
        // An empty repository is no error.
        let empty = r(&client, &format!("stopifnot(nrow(available.packages(repos = '{cran}/latest')) == 0)")).await;
        assert!(empty.code == Some(0) && !empty.stderr.contains("Warning"), "{empty:?}");

        let files = Folder::new();
        let dependency = build(&files, "tinydep", "0.1", "", true).await;
        let old = build(&files, "tinyr", "1.0", "tinydep", false).await;
        let new = build(&files, "tinyr", "1.10-1", "tinydep", false).await;
        let upload = async |file: &str, query: &str| {
            let name = file.rsplit('/').next().unwrap();
            let url = format!("{cran}/upload/{name}{query}");
            let user = format!("__token__:{key}");
            let done = client.runs("curl", &["-sS", "-w", " %{http_code}", "-u", &user, "-T", file, &url]).await.ok();
            done.stdout
        };
        assert_eq!(upload(&dependency[0], "").await, "published\n 201");
        assert_eq!(upload(&dependency[0], "").await, "it was there already\n 200");
        assert_eq!(upload(&dependency[1], "?distribution=bookworm").await, "published\n 201");
        assert!(upload(&dependency[1], "").await.contains("say for which Linux distribution"));
        assert_eq!(upload(&old[0], "").await, "published\n 201");
        assert_eq!(upload(&new[0], "").await, "published\n 201");
        for node in [&a, &b] {
            eventually("the packages on every node", async || {
                let index = get(&node.address, "/packages/cran/latest/src/contrib/PACKAGES").await.text();
                (index.contains("Version: 1.10-1") && index.contains("tinydep")).then_some(())
            })
            .await;
        }

        // What R itself would write for the same files, and ours, read by R.
        let same = format!(
            "dir.create(d <- tempfile()); file.copy(c({:?}, {:?}), d); tools::write_PACKAGES(d); \
             u <- url('{cran}/latest/src/contrib/PACKAGES.rds'); ours <- readRDS(gzcon(u)); \
             stopifnot(identical(ours, readRDS(file.path(d, 'PACKAGES.rds')))); \
             g <- tempfile(); download.file('{cran}/latest/src/contrib/PACKAGES.gz', g, quiet = TRUE); \
             stopifnot(identical(read.dcf(gzfile(g)), read.dcf(file.path(d, 'PACKAGES')))); \
             m <- readRDS(gzcon(url('{cran}/latest/src/contrib/Meta/archive.rds'))); \
             stopifnot(identical(rownames(m$tinyr), 'tinyr/tinyr_1.0.tar.gz'), m$tinyr$size == {}, inherits(m$tinyr$mtime, 'POSIXct'))",
            dependency[0],
            new[0],
            std::fs::metadata(&old[0]).unwrap().len()
        );
        r(&client, &same).await.ok();

        // From source, with its dependency; then an old version from the Archive; then the binary.
        let install = |more: &str| {
            let library = Folder::new();
            let root = library.root().to_str().unwrap().to_owned();
            let text = format!(
                ".libPaths('{root}'); {more}; stopifnot(require(tinyr, lib.loc = '{root}')); cat(tinyr::content(), tinydep::content())"
            );
            (library, text)
        };
        let (_library, text) = install(&format!("install.packages('tinyr', repos = '{cran}/latest', quiet = TRUE)"));
        assert_eq!(r(&client, &text).await.ok().stdout, "tinyr 1.10-1 tinydep 0.1");
        let (_library, text) = install(&format!(
            "install.packages('tinydep', repos = '{cran}/latest', quiet = TRUE); \
             install.packages('{cran}/latest/src/contrib/Archive/tinyr/tinyr_1.0.tar.gz', repos = NULL, quiet = TRUE)"
        ));
        assert_eq!(r(&client, &text).await.ok().stdout, "tinyr 1.0 tinydep 0.1");
        let (_library, text) = install(&format!(
            "options(HTTPUserAgent = sprintf('R/%s R (%s)', getRversion(), paste(getRversion(), R.version$platform, R.version$arch, R.version$os))); \
             install.packages('tinyr', repos = '{cran}/__linux__/bookworm/latest')"
        ));
        let done = r(&client, &text).await.ok();
        assert!(done.stderr.contains("installing *binary* package ‘tinydep’"), "{done:?}");
        assert!(done.stderr.contains("installing *source* package ‘tinyr’"), "{done:?}");
        let status = get(&b.address, "/packages/__api__/status").await.text();
        assert!(status.contains("\"binaryURL\":\"bookworm\""), "{status}");
        for root in ["", "/packages"] {
            let path =
                format!("{root}/__api__/repos/1/sysreqs?all=false&pkgname=curl&distribution=ubuntu&release=20.04");
            let answer = get(&b.address, &path).await;
            assert!(
                answer.status == 404 && answer.text().contains("\"error\":\"this server does not know"),
                "{answer:?}"
            );
        }
        let version = r(&client, "cat(sub('[.][0-9]+$', '', getRversion()))").await.ok().stdout;
        let path = format!("/packages/cran/bin/linux/{version}-bookworm/contrib/{version}/PACKAGES");
        let linux = get(&a.address, &path).await.text();
        assert!(linux.contains("Package: tinydep") && !linux.contains("tinyr"), "{linux}");

        // Yesterday there was nothing; today is not over.
        let then = get(&a.address, "/packages/cran/2024-01-01/src/contrib/PACKAGES").await;
        assert_eq!((then.status, then.text().as_str()), (200, ""));
        assert_eq!(get(&a.address, "/packages/cran/2999-01-01/src/contrib/PACKAGES").await.status, 404);
    });
}

/// A gzipped tarball of these entries.
pub fn tarball(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut out = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, text) in entries {
        let mut header = tar::Header::new_gnu();
        // `set_path` and `append_data` refuse what an attacker would write.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        out.append(&header, text.as_bytes()).unwrap();
    }
    out.into_inner().unwrap().finish().unwrap()
}

#[test]
fn r_packages_that_are_not_right_are_refused_in_words_and_leave_nothing() {
    within(60, async {
        let node = Node::start("a", "[packages]\nfile_bytes_max = \"100KiB\"\n").await;
        node.command(&["repo", "create", "cran", "--type", "cran"]).await;
        let key = node.command(&["key", "create", "--scope", "publish"]).await;
        let index = "/packages/cran/latest/src/contrib/PACKAGES";
        eventually("the repository", async || (get(&node.address, index).await.status == 200).then_some(())).await;
        let good = "Package: pk\nVersion: 1.0\nLicense: GPL-2\n";
        let long = format!("{good}X: {}\n", "x".repeat(2 << 20));
        let of = |description: &str| tarball(&[("pk/DESCRIPTION", description)]);
        let binary = of(&format!("{good}Built: R 4.2.2; ; x; unix\n"));
        let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
            ("pk.tar.gz", of(good), 400, "is not PACKAGE_VERSION"),
            ("pk_one.tar.gz", of(good), 400, "is not PACKAGE_VERSION"),
            ("pk_1.0.tar.gz", b"no tarball".to_vec(), 400, "not a .tar.gz"),
            ("pk_1.0.tar.gz", of(good)[..40].to_vec(), 400, "not a .tar.gz"),
            ("pk_1.0.tar.gz", Vec::new(), 400, "empty"),
            ("pk_1.0.tar.gz", tarball(&[("other/DESCRIPTION", good)]), 400, "no pk/DESCRIPTION"),
            ("pk_2.0.tar.gz", of(good), 400, "the filename says pk 2.0"),
            ("pk_1.0.tar.gz", of("no field\n"), 400, "line 1 is no"),
            ("pk_1.0.tar.gz", of(&format!("{good}Package: pk\n")), 400, "comes twice"),
            ("pk_1.0.tar.gz", of(&long), 400, "larger than"),
            ("pk_1.0.tar.gz", tarball(&[("pk/DESCRIPTION", good), ("../x", "x")]), 400, "does not stay inside"),
            ("pk_1.0.tar.gz", tarball(&[("pk/DESCRIPTION", good), ("/etc/x", "x")]), 400, "does not stay inside"),
            ("pk_1.0.tar.gz", binary.clone(), 400, "say for which Linux"),
            ("pk_1.0.tar.gz?distribution=..%2Fx", binary, 400, "no codename"),
            ("pk_1.0.tar.gz?distribution=bookworm", of(good), 400, "source package"),
            ("pk_1.0.tgz", of(good), 400, "no `Built`"),
            ("pk_1.0.tar.gz", vec![7; 200_000], 413, "larger than the 102400 bytes"),
        ];
        let authorization = format!("Bearer {key}");
        let put = async |name: &str, bytes: &[u8]| {
            let head = [("Authorization", authorization.as_str())];
            let path = format!("/packages/cran/upload/{name}");
            crate::harness::Client::tcp(&node.address).await.request("PUT", &path, &head, bytes).await
        };
        for (name, bytes, status, words) in &cases {
            let answer = put(name, bytes).await;
            assert_eq!(answer.status, *status, "{name} {words}: {answer:?}");
            assert!(answer.text().contains(words), "{name} {words}: {}", answer.text());
        }
        assert_eq!(get(&node.address, index).await.text(), "", "nothing of it is shown");
        assert_eq!(put("pk_1.0.tar.gz", &of(good)).await.status, 201);
        assert_eq!(put("pk_1.0.tar.gz", &of(&format!("{good}X: y\n"))).await.status, 409);
        let left: Vec<_> = std::fs::read_dir(node.folder.path("data/cache/spool")).unwrap().collect();
        assert_eq!(left.len(), 1, "one spool");
        let own = left.into_iter().next().unwrap().unwrap().path();
        assert_eq!(std::fs::read_dir(own).unwrap().count(), 1, "with nothing but its lock");
    });
}
