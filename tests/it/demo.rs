//! `bowline demo`: everything on one machine, in one command, and nothing of it left afterwards.

use rustix::process::Signal;

use crate::harness::demo::is_alive;
use crate::harness::{Client, ClientTls, Demo, tool, within};

fn needs_shiny() {
    // Says what to do when they are missing.
    tool("python3");
    tool("Rscript");
}

/// How a client trusts this demo.
fn trust(demo: &Demo, name: &str) -> ClientTls {
    use rustls::pki_types::pem::PemObject;
    let ca = rustls::pki_types::CertificateDer::from_pem_file(demo.text("ca")).unwrap();
    ClientTls::new(&ca, name)
}

/// Each page it names is there, verified by its CA.
async fn serves(demo: &Demo) {
    let content = demo.told["content"].as_array().unwrap();
    assert!(content.len() >= 2, "Python and R: {}", demo.told);
    for page in content {
        let url = page["url"].as_str().unwrap();
        let host = url.strip_prefix("https://").unwrap().split(['/', ':']).next().unwrap();
        let name = if host == "127.0.0.1" { "localhost" } else { host };
        let mut client = Client::tls(demo.address(), &trust(demo, name)).await;
        let answer = client.request("GET", "/", &[("Host", name), ("Accept", "text/html")], b"").await;
        assert_eq!(answer.status, 200, "{page}: {answer:?}");
        assert!(answer.text().contains("shiny"), "{page}");
    }
}

#[test]
fn one_line_tells_where_everything_is_and_it_is_there() {
    needs_shiny();
    within(200, async {
        let mut demo = Demo::start().await;
        for key in ["url", "ca", "admin", "admin_socket", "config", "proxy", "nodes", "content"] {
            assert!(!demo.told[key].is_null(), "`{key}` is missing: {}", demo.told);
        }
        serves(&demo).await;
        for name in ["localhost", "python.localhost", "r.localhost", "127.0.0.1"] {
            assert!(
                Client::try_tls(demo.address(), &trust(&demo, name)).await.is_ok(),
                "the certificate is for {name}"
            );
        }
        assert!(crate::harness::get(demo.admin(), "/readyz").await.status == 200);
        let status =
            crate::harness::bowline(&["status", "--json", "--admin", demo.text("admin_socket")]).await.ok().json();
        assert_eq!(status["pid"], demo.told["proxy"]["pid"]);
        let check = crate::harness::bowline(&["check", demo.text("config")]).await;
        assert_eq!(check.code, Some(0), "its configuration can be taken as a start: {check:?}");
        let apps: Vec<_> =
            demo.told["nodes"].as_array().unwrap().iter().map(|n| n["app"].as_str().unwrap().to_owned()).collect();
        assert!(apps.len() >= 4, "two of each: {apps:?}");

        let children = demo.children();
        assert!(children.iter().all(|p| is_alive(*p)));
        demo.signal(Signal::INT);
        assert_eq!(demo.exit().await.code(), Some(0));
        Demo::until_gone(&children).await;
    });
}

#[test]
fn a_second_demo_beside_the_first_works_and_neither_leaves_anything() {
    needs_shiny();
    within(400, async {
        let mut first = Demo::start().await;
        let mut second = Demo::start().await;
        assert_ne!(first.address(), second.address());
        assert_ne!(first.admin(), second.admin());
        serves(&second).await;
        let (of_first, of_second) = (first.children(), second.children());
        // Killed without a chance to clean up, its children end all the same.
        second.signal(Signal::KILL);
        second.exit().await;
        Demo::until_gone(&of_second).await;
        serves(&first).await;
        assert!(of_first.iter().all(|p| is_alive(*p)), "the other one did not notice");
        first.signal(Signal::TERM);
        assert_eq!(first.exit().await.code(), Some(0));
        Demo::until_gone(&of_first).await;
    });
}
