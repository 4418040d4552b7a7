//! What content is made of, in another place than packages.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::content::{Publisher, two_nodes};
use crate::harness::{Authority, Client, Folder, Node, Response, S3, bowline, eventually, get, get_as, within};
use crate::jobs::collect;
use crate::matrix::digest;
use crate::packages::{make, proxy};

/// Names of all blobs below a folder, sorted.
fn blobs(root: &Path) -> Vec<String> {
    let mut folders: Vec<PathBuf> = vec![root.join("sha256")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => found.push(entry.file_name().into_string().unwrap()),
            }
        }
    }
    found.sort();
    found
}

async fn api(node: &Node, key: &str, method: &str, path: &str) -> Response {
    let authorization = format!("Key {key}");
    let fields = [("authorization", authorization.as_str())];
    Client::tcp(&node.address).await.request(method, &format!("/__api__{path}"), &fields, b"").await
}

/// What a path of a node's shows to who has a key, once it shows something.
async fn seen(node: &Node, key: &str, path: &str) -> String {
    eventually("the page", async || {
        let seen = get_as(&node.address, path, &[("authorization", &format!("Key {key}"))]).await;
        (seen.status == 200).then(|| seen.text())
    })
    .await
}

/// Digest and id of the only bundle of content.
async fn bundle(node: &Node, key: &str, guid: &str) -> (String, String) {
    let all = api(node, key, "GET", &format!("/v1/content/{guid}/bundles")).await.json();
    assert_eq!(all.as_array().unwrap().len(), 1, "{all}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&all[0]["metadata"]["archive_sha256"]), text(&all[0]["id"]))
}

/// The bundle as the client people use downloads it.
async fn downloaded(publisher: &Publisher, guid: &str) -> Vec<u8> {
    let to = Folder::new();
    let file = to.path("bundle.tar.gz");
    publisher.runs(&["content", "download-bundle"], &["-g", guid, "-o", file.to_str().unwrap()]).await.ok();
    std::fs::read(file).unwrap()
}

fn site(text: &str) -> Folder {
    let site = Folder::new();
    site.write("index.html", text);
    site
}

const SOON: &str = "[garbage]\ngrace = \"1s\"\n";

#[test]
fn bundles_in_a_folder_of_their_own_come_and_go_and_packages_stay() {
    within(120, async {
        let a = Node::start("a", &format!("{SOON}[storage.bundles]\npath = \"bundles\"\nencrypt = true\n")).await;
        let b = a.beside("b").await;
        let proxy = proxy(&[&a, &b], &Authority::new()).await;
        let [packages, bundles] = ["data/blobs", "bundles"].map(|name| a.folder.path(name));
        a.command(&["repo", "create", "pypi"]).await;
        let files = Folder::new();
        let alpha = make(&files, "alpha", "1.0", "a").await;
        a.command(&["add", "pypi", &alpha[0]]).await;
        let of_packages = blobs(&packages);
        assert!(!of_packages.is_empty() && blobs(&bundles).is_empty());

        let key = a.command(&["key", "create", "--admin", "--name", "ann"]).await;
        let publisher = Publisher::new(&proxy, key.clone());
        let told = publisher.runs(&["deploy", "html"], &[site("<h1>a page</h1>").root().to_str().unwrap()]).await.ok();
        let guid = Publisher::guid(&told);
        let path = format!("/content/{guid}/");
        for node in [&a, &b] {
            assert_eq!(seen(node, &key, &path).await, "<h1>a page</h1>");
        }
        let (sha256, id) = bundle(&a, &key, &guid).await;
        assert_eq!(blobs(&bundles), [format!("{sha256}.sealed")], "sealed there and nowhere else");
        assert_eq!(blobs(&packages), of_packages);
        assert_eq!(digest(&downloaded(&publisher, &guid).await), sha256);

        let log = collect(&a).await;
        assert!(log.contains("0 of 3 blobs deleted") && log.contains("1 blobs where bundles are"), "{log}");
        // Each node marks each place, and finds the other's marks there.
        let doctor = eventually("both nodes to have looked", async || {
            let told: Value =
                serde_json::from_str(&bowline(&["doctor", "--json", "-c", &a.config()]).await.stdout).unwrap();
            let of = |check: &&Value| check["name"] == "storage";
            let storage = told["checks"].as_array().unwrap().iter().find(of).unwrap().clone();
            (storage["verdict"] == "ok").then_some(told)
        })
        .await;
        assert!(!doctor.to_string().contains("more than one configuration"), "{doctor}");
        for place in [&packages, &bundles] {
            assert_eq!(std::fs::read_dir(place.join("nodes")).unwrap().count(), 2, "{}", place.display());
        }

        assert_eq!(api(&a, &key, "DELETE", &format!("/v1/content/{guid}/bundles/{id}")).await.status, 409, "it runs");
        assert_eq!(api(&a, &key, "DELETE", &format!("/v1/content/{guid}")).await.status, 204);
        eventually("the bundle to go", async || {
            collect(&a).await;
            blobs(&bundles).is_empty().then_some(())
        })
        .await;
        assert_eq!(blobs(&packages), of_packages);
        let page = get(&b.address, "/packages/pypi/simple/alpha/").await.text();
        assert!(page.contains("alpha-1.0"), "{page}");
    });
}

#[test]
fn bundles_and_renderings_in_a_bucket_leave_packages_where_they_are() {
    within(180, async {
        let s3 = S3::start().await;
        let own = Folder::new();
        let secret = own.write("s3.secret", "test\n");
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let bucket = s3
            .config("encrypt = true")
            .replace("[storage.default]", "[storage.bundles]")
            .replace("\"s3.secret\"", &format!("{secret:?}"));
        let (a, b) = two_nodes(&format!("{SOON}{bucket}")).await;
        let proxy = proxy(&[&a, &b], &Authority::new()).await;
        let packages = a.folder.path("data/blobs");
        let of_packages = blobs(&packages);
        assert!(of_packages.len() > 10, "the wheels");
        let there = async || {
            let all = s3.holds(b"a cell of its own").await.into_iter().filter(|(name, _)| name.contains("/sha256/"));
            let (names, reads): (Vec<_>, Vec<_>) = all.unzip();
            assert!(names.iter().all(|name| name.ends_with(".sealed")) && !reads.contains(&true), "{names:?}");
            names
        };
        assert!(there().await.is_empty());

        let key = a.command(&["key", "create", "--admin", "--name", "ann"]).await;
        let publisher = Publisher::new(&proxy, key.clone());
        let code = "print('a cell of its own', 6 * 7)";
        let notebook = json!({
            "cells": [{"cell_type": "code", "execution_count": null, "id": "a1", "metadata": {}, "outputs": [], "source": code}],
            "metadata": {"kernelspec": {"display_name": "Some", "language": "python", "name": "python3"}},
            "nbformat": 4, "nbformat_minor": 5,
        });
        let report = Folder::new();
        let file = report.write("report.ipynb", notebook.to_string());
        report.write("requirements.txt", "ipykernel\n");
        let told = publisher.runs(&["deploy", "notebook"], &[file.to_str().unwrap()]).await.ok();
        let guid = Publisher::guid(&told);
        for node in [&a, &b] {
            assert!(seen(node, &key, &format!("/content/{guid}/")).await.contains("a cell of its own 42"));
        }
        let (sha256, _) = bundle(&a, &key, &guid).await;
        assert_eq!((there().await.len(), blobs(&packages)), (2, of_packages.clone()), "a bundle and its rendering");
        assert_eq!(digest(&downloaded(&publisher, &guid).await), sha256);
        let log = collect(&a).await;
        assert!(log.contains("2 blobs where bundles are") && log.contains("nothing refers to 0"), "{log}");

        assert_eq!(api(&a, &key, "DELETE", &format!("/v1/content/{guid}")).await.status, 204);
        eventually("both to go", async || {
            collect(&a).await;
            there().await.is_empty().then_some(())
        })
        .await;
        assert_eq!(blobs(&packages), of_packages);
    });
}

#[test]
fn one_place_under_two_names_loses_nothing() {
    within(120, async {
        let folder = Folder::new();
        std::fs::create_dir_all(folder.path("data/blobs")).unwrap();
        std::os::unix::fs::symlink(folder.path("data/blobs"), folder.path("alias")).unwrap();
        bowline(&["keygen", folder.path("node.key").to_str().unwrap()]).await.ok();
        let more = format!("{SOON}[storage.bundles]\npath = \"alias\"\n");
        let a = Node::start_in("a", std::sync::Arc::new(folder), &more).await;
        let proxy = proxy(&[&a], &Authority::new()).await;
        a.command(&["repo", "create", "pypi"]).await;
        let files = Folder::new();
        let [alpha, beta] = [make(&files, "alpha", "1.0", "a").await, make(&files, "beta", "1.0", "b").await];
        a.command(&["add", "pypi", &alpha[0], &beta[0]]).await;
        let key = a.command(&["key", "create", "--admin", "--name", "ann"]).await;
        let publisher = Publisher::new(&proxy, key.clone());
        let told = publisher.runs(&["deploy", "html"], &[site("<h1>a page</h1>").root().to_str().unwrap()]).await.ok();
        let guid = Publisher::guid(&told);
        let (sha256, _) = bundle(&a, &key, &guid).await;
        a.command(&["remove", "pypi", "alpha", "--all"]).await;
        let before = blobs(&a.folder.path("data/blobs"));
        let after = eventually("what nothing refers to, to go", async || {
            collect(&a).await;
            Some(blobs(&a.folder.path("data/blobs"))).filter(|now| now.len() < before.len())
        })
        .await;
        assert_eq!((before.len(), after.len()), (5, 3), "a wheel and its metadata of each, and a bundle");
        assert!(after.contains(&sha256), "{after:?}");
        assert_eq!(digest(&downloaded(&publisher, &guid).await), sha256);
    });
}

#[test]
fn bundles_move_by_a_copy_and_what_was_left_behind_stays_for_the_way_back() {
    within(120, async {
        let mut a = Node::start("a", SOON).await;
        let folder = a.folder.clone();
        let proxy = proxy(&[&a], &Authority::new()).await;
        let key = a.command(&["key", "create", "--admin", "--name", "ann"]).await;
        let publisher = Publisher::new(&proxy, key.clone());
        let told = publisher.runs(&["deploy", "html"], &[site("<h1>a page</h1>").root().to_str().unwrap()]).await.ok();
        let guid = Publisher::guid(&told);
        let (path, (sha256, _)) = (format!("/content/{guid}/"), bundle(&a, &key, &guid).await);
        // What is unpacked would hide what is not there.
        let restarted = async |mut a: Node, more: &str| {
            a.kill().await;
            std::fs::remove_dir_all(folder.path("data/cache")).unwrap();
            folder.remove("a.ports");
            Node::start_in("a", folder.clone(), &format!("{SOON}{more}")).await
        };
        const APART: &str = "[storage.bundles]\npath = \"bundles\"\n";
        a = restarted(a, APART).await;
        let away = get_as(&a.address, &path, &[("authorization", &format!("Key {key}"))]).await;
        assert!(away.status >= 500, "nobody has copied it: {away:?}");
        // Long enough for what is collected to be gone.
        for _ in 0..3 {
            collect(&a).await;
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
        assert_eq!(blobs(&folder.path("data/blobs")), [&*sha256], "a row names it, wherever it looks for it");
        a = restarted(a, "").await;
        assert_eq!(seen(&a, &key, &path).await, "<h1>a page</h1>");

        let copy = std::process::Command::new("cp")
            .args(["-a".as_ref(), folder.path("data/blobs/sha256").as_os_str(), folder.path("bundles").as_os_str()])
            .status();
        assert!(copy.unwrap().success());
        a = restarted(a, APART).await;
        assert_eq!(seen(&a, &key, &path).await, "<h1>a page</h1>");
        // What is removed goes from both.
        assert_eq!(api(&a, &key, "DELETE", &format!("/v1/content/{guid}")).await.status, 204);
        eventually("both to go", async || {
            collect(&a).await;
            (blobs(&folder.path("bundles")).is_empty() && blobs(&folder.path("data/blobs")).is_empty()).then_some(())
        })
        .await;
    });
}
