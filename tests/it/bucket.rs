//! Packages in an S3 bucket: as in a folder, and what happens when the bucket is away.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use crate::harness::{Folder, Node, S3, bowline, eventually, get, get_as, within};
use crate::packages::{Trusting, make};

async fn node(s3: &S3, more: &str) -> Node {
    let folder = Arc::new(Folder::new());
    let secret = folder.write("s3.secret", "test\n");
    std::fs::set_permissions(secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    bowline(&["keygen", folder.path("node.key").to_str().unwrap()]).await.ok();
    let node = Node::start_in("a", folder, &s3.config(more)).await;
    node.command(&["repo", "create", "pypi"]).await;
    eventually("the repository", async || {
        (get(&node.address, "/packages/pypi/simple/").await.status == 200).then_some(())
    })
    .await;
    node
}

/// The path of a project's only wheel.
async fn wheel(node: &Node, project: &str) -> String {
    let page = get(&node.address, &format!("/packages/pypi/simple/{project}/")).await.text();
    let href = page.split("../../").find(|part| part.contains(".whl")).unwrap().split('#').next().unwrap().to_owned();
    format!("/packages/pypi/{href}")
}

#[test]
fn what_is_published_lies_sealed_in_the_bucket_and_installs_while_the_bucket_is_away() {
    within(120, async {
        let mut s3 = S3::start().await;
        let node = node(&s3, "encrypt = true").await;
        let files = Folder::new();
        let alpha = make(&files, "alpha", "1.0", "a text nobody may read").await;
        let beta = make(&files, "beta", "1.0", "x").await;
        // Larger than one part of an upload.
        let large = make(&files, "large", "1.0", &"0123456789abcdef".repeat(4)).await;
        let mut bytes = std::fs::read(&large[1]).unwrap();
        bytes = tarball_with(&bytes);
        std::fs::write(&large[1], &bytes).unwrap();
        node.command(&["add", "pypi", &alpha[0], &alpha[1], &beta[0], &large[0], &large[1]]).await;
        let there = s3.holds(b"METADATA").await;
        assert!(there.len() > 5 && there.iter().all(|(name, reads)| name.starts_with("a/b/") && !reads), "{there:?}");

        let client = Trusting(String::from("/dev/null"));
        let index = format!("http://{}/packages/pypi/simple/", node.address);
        let to = files.path("to").to_str().unwrap().to_owned();
        let told = ["-m", "pip", "install", "-q", "--no-cache-dir", "--index-url", &index, "--target", &to, "alpha"];
        client.runs("python3", &told).await.ok();
        let page = get(&node.address, "/packages/pypi/simple/large/").await.text();
        let href = page.split("../../").find(|part| part.contains(".tar.gz")).unwrap().split('#').next().unwrap();
        let path = format!("/packages/pypi/{href}");
        assert!(get(&node.address, &path).await.body == bytes, "20 MiB in parts");
        let part = get_as(&node.address, &path, &[("Range", "bytes=17000000-17000009")]).await;
        assert_eq!((part.status, part.body.as_slice()), (206, &bytes[17_000_000..17_000_010]));

        // A copy on this machine's disk serves what was asked for before; the rest is a 503, and no row without its blob.
        let (known, unknown) = (wheel(&node, "alpha").await, wheel(&node, "beta").await);
        s3.hang();
        assert_eq!(get(&node.address, &known).await.status, 200);
        s3.down();
        let away = get(&node.address, &unknown).await;
        assert!(away.status == 503 && away.fields.has("retry-after"), "{away:?}");
        let gamma = make(&files, "gamma", "1.0", "x").await;
        let config = node.config();
        let refused = bowline(&["add", "pypi", &gamma[0], "-c", &config]).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert_eq!(get(&node.address, "/packages/pypi/simple/gamma/").await.status, 404);
    });
}

/// A source distribution with 20 MiB of what does not compress beside what it had.
fn tarball_with(sdist: &[u8]) -> Vec<u8> {
    let mut old = tar::Archive::new(flate2::read::GzDecoder::new(sdist));
    let mut new = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none()));
    let mut top = String::new();
    for entry in old.entries().unwrap() {
        let entry = entry.unwrap();
        let header = entry.header().clone();
        top = entry.path().unwrap().iter().next().unwrap().to_str().unwrap().to_owned();
        new.append(&header, entry).unwrap();
    }
    let noise: Vec<u8> = (0..20_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut header = tar::Header::new_gnu();
    header.set_size(noise.len() as u64);
    header.set_mode(0o644);
    new.append_data(&mut header, format!("{top}/noise"), &noise[..]).unwrap();
    new.into_inner().unwrap().finish().unwrap()
}

#[test]
fn clients_may_be_sent_to_the_bucket_itself_but_ask_the_node_about_it() {
    within(60, async {
        let s3 = S3::start().await;
        let node = node(&s3, "redirect = true").await;
        let files = Folder::new();
        let alpha = make(&files, "alpha", "1.0", "x").await;
        node.command(&["add", "pypi", &alpha[0]]).await;
        eventually("the package", async || {
            (get(&node.address, "/packages/pypi/simple/alpha/").await.status == 200).then_some(())
        })
        .await;
        let path = wheel(&node, "alpha").await;
        let sent = get(&node.address, &path).await;
        assert!(sent.status == 307 && sent.fields.get("location").unwrap().contains("Signature"), "{sent:?}");
        let head = crate::harness::Client::tcp(&node.address).await.request("HEAD", &path, &[], b"").await;
        assert_eq!(head.status, 200);
        // What runs in a sandbox reaches this node alone.
        let here = get_as(&node.address, &path, &[("x-bowline-here", "1")]).await;
        assert_eq!((here.status, here.body.len()), (200, std::fs::read(&alpha[0]).unwrap().len()));
        let client = Trusting(String::from("/dev/null"));
        let index = format!("http://{}/packages/pypi/simple/", node.address);
        for (program, first) in
            [("python3", &["-m", "pip", "install", "--no-cache-dir"][..]), ("uv", &["pip", "install", "--no-cache"])]
        {
            let to = files.path(program).to_str().unwrap().to_owned();
            client
                .runs(program, &[first, &["-q", "--index-url", &index, "--target", &to, "alpha"]].concat())
                .await
                .ok();
        }
    });
}

#[test]
fn a_bucket_that_is_not_there_is_told_at_the_start() {
    within(60, async {
        let s3 = S3::start().await;
        let first = node(&s3, "").await;
        let text = first.folder.read("a.toml").replace("bucket = \"bowline\"", "bucket = \"absent\"");
        let file = first.folder.write("absent.toml", text);
        let refused = bowline(&["node", "-c", file.to_str().unwrap()]).await;
        assert!(refused.code == Some(1) && refused.stderr.contains("s3://absent/"), "{refused:?}");
        assert!(!refused.stderr.contains("test\n"), "no secret: {refused:?}");
    });
}
