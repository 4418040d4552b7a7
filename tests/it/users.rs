//! Users: passwords and keys of people, their roles and their end, with real clients through the TLS proxy.

use crate::harness::{Authority, Folder, Node, Output, bowline, eventually, get_as, within};
use crate::packages::{Trusting, base, make, proxy};

/// A password of ours, and the value of `Authorization` with it.
fn basic(username: &str, password: &str) -> String {
    use base64::Engine;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}")))
}

#[test]
fn people_publish_and_install_by_password_or_key_as_their_role_allows() {
    within(120, async {
        let a = Node::start("a", "").await;
        let b = a.beside("b").await;
        a.command(&["repo", "create", "pypi", "--private"]).await;
        let own = Folder::new();
        let file = |name: &str, text: &str| own.write(name, format!("{text}\n")).to_str().unwrap().to_owned();
        let admin = file("admin", &a.command(&["key", "create", "--admin"]).await);
        let ca = Authority::new();
        let proxy = proxy(&[&a, &b], &ca).await;
        let (url, pem) = (base(&proxy), proxy.folder.path("ca.pem").to_str().unwrap().to_owned());
        let far = async |key: &str, arguments: &[&str]| -> Output {
            bowline(&[arguments, &["--server", &url, "--ca-file", &pem, "--key-file", key]].concat()).await
        };

        let (ann, bob) = (file("ann", "ann's secret"), file("bob", "bob's: secret"));
        let create = ["user", "create", "Ann", "--role", "publisher", "--email", "ann@example.org"];
        let told = far(&admin, &[&create[..], &["--password-file", &ann]].concat()).await.ok();
        assert_eq!(told.stdout, "made: ann\n");
        far(&admin, &["user", "create", "bob", "--password-file", &bob]).await.ok();
        for (arguments, words) in [
            (&["user", "create", "ANN"][..], "There is a user `ann` already"),
            (&["user", "create", "a b"], "is no user name"),
            (&["user", "create", "cy", "--email", "nowhere"], "is no mail address"),
            (&["user", "create", "cy", "--password-file", &file("short", "1234")], "8 to 1024 characters"),
            (&["user", "lock", "cy"], "There is no user `cy`"),
            (&["key", "create", "--user", "cy"], "There is no user `cy`"),
        ] {
            let refused = far(&admin, arguments).await;
            assert!(refused.code == Some(1) && refused.stderr.contains(words), "{arguments:?}: {refused:?}");
        }

        // By password: ann publishes, bob only installs.
        let client = Trusting(pem.clone());
        let files = Folder::new();
        let alpha = make(&files, "alpha", "1.0", "x").await;
        let upload = format!("{url}/packages/pypi/legacy/");
        let twine = async |username: &str, password: &str, file: &str| {
            let told = ["upload", "--non-interactive", "--repository-url", &upload, "-u", username, "-p", password];
            client.runs("twine", &[&told[..], &[file]].concat()).await
        };
        let refused = twine("bob", "bob's: secret", &alpha[0]).await;
        let words = format!("{}{}", refused.stdout, refused.stderr);
        assert!(refused.code == Some(1) && words.contains("A viewer is not allowed to publish"), "{words}");
        let refused = twine("ann", "bob's: secret", &alpha[0]).await;
        let words = format!("{}{}", refused.stdout, refused.stderr);
        assert!(refused.code == Some(1) && words.contains("this is not their password"), "{words}");
        twine("Ann", "ann's secret", &alpha[0]).await.ok();
        let install = async |username: &str, password: &str, to: &str| {
            let index = url.replace("://", &format!("://{username}:{password}@")) + "/packages/pypi/simple/";
            let to = files.path(to).to_str().unwrap().to_owned();
            let told = ["-m", "pip", "install", "--disable-pip-version-check", "--no-cache-dir", "--index-url", &index];
            client.runs("python3", &[&told[..], &["--target", &to, "alpha"]].concat()).await
        };
        install("bob", "bob%27s%3A%20secret", "bob").await.ok();

        // A key of hers, made by herself, is her name and no more than her.
        let address = &a.address;
        let as_ann = basic("ann", "ann's secret");
        let post = async |body: &str| {
            let mut client = crate::harness::Client::tcp(address).await;
            let fields = [("authorization", as_ann.as_str()), ("content-type", "application/json")];
            client.request("POST", "/__api__/v1/keys", &fields, body.as_bytes()).await
        };
        let refused = post(r#"{"name": "laptop", "scope": "admin"}"#).await;
        assert!(refused.status == 403 && refused.text().contains("A publisher is not allowed"), "{}", refused.text());
        let refused = post(r#"{"name": "laptop", "scope": "read", "user": "bob"}"#).await;
        assert_eq!(refused.status, 403);
        let made = post(r#"{"name": "laptop", "scope": "publish"}"#).await;
        let made: serde_json::Value = serde_json::from_str(&made.text()).unwrap();
        assert_eq!(made["user"], "ann");
        let laptop = made["key"].as_str().unwrap().to_owned();
        // One that was lost makes no others and ends none.
        let lost = post(r#"{"name": "lost", "scope": "read", "expires_in": "1h"}"#).await.json();
        let lost = file("lost", lost["key"].as_str().unwrap());
        let keys = get_as(address, "/__api__/v1/keys", &[("authorization", &as_ann)]).await.json();
        let id = keys.as_array().unwrap().iter().find(|key| key["name"] == "laptop").unwrap()["id"].as_str().unwrap();
        for arguments in [&["key", "create", "--name", "more"][..], &["key", "list"], &["key", "revoke", id]] {
            let refused = far(&lost, arguments).await;
            let words = "The API key does not allow to";
            assert!(refused.code == Some(1) && refused.stderr.contains(words), "{arguments:?}: {refused:?}");
        }
        // As password of any user.
        twine("bob", &laptop, &alpha[1]).await.ok();
        let laptop_file = file("laptop", &laptop);
        assert_eq!(far(&laptop_file, &["repo", "create", "x"]).await.code, Some(1));
        let keys = far(&laptop_file, &["key", "list"]).await.ok().stdout;
        assert!(keys.contains("laptop") && keys.contains("lost") && keys.lines().count() == 3, "only hers: {keys}");
        let who = get_as(address, "/__api__/v1/user", &[("authorization", &format!("Key {laptop}"))]).await;
        let who: serde_json::Value = serde_json::from_str(&who.text()).unwrap();
        assert_eq!((&who["username"], &who["user_role"]), (&"ann".into(), &"publisher".into()));
        let audit = far(&admin, &["audit"]).await.ok().stdout;
        assert!(audit.contains("ann (laptop)") && audit.contains("create_user"), "{audit}");
        assert!(!audit.contains("secret"), "{audit}");

        // An administrator's key of hers is a publisher's; then she is a viewer; then she is locked out; then back again.
        let strong = far(&admin, &["key", "create", "--user", "ann", "--admin", "--name", "strong"]).await.ok().stdout;
        let strong = file("strong", strong.trim());
        assert_eq!(far(&strong, &["repo", "create", "x"]).await.code, Some(1));
        far(&admin, &["user", "edit", "ann", "--role", "viewer", "--last-name", "Lee"]).await.ok();
        let beta = make(&files, "beta", "1.0", "x").await;
        eventually("her new role", async || {
            (far(&strong, &["add", "pypi", &beta[0]]).await.code == Some(1)).then_some(())
        })
        .await;
        far(&admin, &["user", "lock", "ann"]).await.ok();
        for node in [&a, &b] {
            for fields in [as_ann.clone(), format!("Bearer {laptop}")] {
                eventually("the lock", async || {
                    let answer = get_as(&node.address, "/packages/pypi/simple/", &[("authorization", &fields)]).await;
                    (answer.status == 401).then_some(())
                })
                .await;
            }
        }
        let listed = far(&admin, &["user", "list"]).await.ok().stdout;
        let words: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[1][..6], ["ann", "viewer", "-", "Lee", "ann@example.org", "yes"], "{listed}");
        far(&admin, &["user", "unlock", "ann"]).await.ok();
        far(&admin, &["user", "password", "ann", "--password-file", &file("new", "another secret")]).await.ok();
        for (password, status) in [("another secret", 200), ("ann's secret", 401)] {
            let fields = [("authorization", &*basic("ann", password))];
            assert_eq!(get_as(address, "/packages/pypi/simple/", &fields).await.status, status, "{password}");
        }
        far(&admin, &["user", "remove", "ann"]).await.ok();
        let gone = far(&strong, &["key", "list"]).await;
        eventually("her end", async || (far(&laptop_file, &["key", "list"]).await.code == Some(1)).then_some(())).await;
        assert_eq!(gone.code, Some(1));

        // Who guesses is slowed down, also many times at once, and whatever is known of who is let in.
        let right = [("authorization", &*basic("bob", "bob's: secret"))];
        assert_eq!(get_as(&b.address, "/packages/pypi/simple/", &right).await.status, 200);
        let guesses = (0..100).map(async |n| {
            let guess = [("authorization", &*basic("bob", &format!("a wrong one {n}")))];
            get_as(&b.address, "/packages/pypi/simple/", &guess).await.status
        });
        let statuses = futures_util::future::join_all(guesses).await;
        let tried = statuses.iter().filter(|status| **status == 401).count();
        assert!((1..=20).contains(&tried) && statuses.contains(&429), "{statuses:?}");
        assert_eq!(get_as(&b.address, "/packages/pypi/simple/", &right).await.status, 429, "it could be a guess");
        let strange = [("authorization", &*basic("a\0b", "password"))];
        assert_eq!(get_as(&a.address, "/packages/pypi/simple/", &strange).await.status, 401);
    });
}

#[test]
fn groups_are_made_filled_and_removed_by_commands() {
    within(60, async {
        let a = Node::start("a", "").await;
        let own = Folder::new();
        let admin = a.command(&["key", "create", "--admin"]).await;
        let admin = own.write("admin", admin).to_str().unwrap().to_owned();
        for name in ["ann", "bob", "cy"] {
            a.command(&["user", "create", name]).await;
        }
        let url = format!("http://{}", a.address);
        let far = async |arguments: &[&str]| -> Output {
            bowline(&[&["group"], arguments, &["--server", &url, "--key-file", &admin]].concat()).await
        };
        let said = async |arguments: &[&str]| far(arguments).await.ok().stdout;
        assert_eq!(said(&["create", "Sales & more"]).await, "made: Sales & more\n");
        assert_eq!(said(&["create", "Finance"]).await, "made: Finance\n");
        assert_eq!(said(&["add", "Sales & more", "ann", "Bob", "ann"]).await, "Sales & more: 2 members\n");
        assert_eq!(said(&["add", "Finance", "cy"]).await, "Finance: 1 member\n");
        assert_eq!(said(&["take", "Finance", "cy"]).await, "Finance: 0 members\n");
        // On the node's own machine too, where it takes no key.
        let members = a.command(&["group", "members", "Sales & more"]).await;
        let names: Vec<&str> = members.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(names, ["ann", "bob"], "{members}");
        assert_eq!(said(&["rename", "Sales & more", "Sales"]).await, "changed: Sales\n");
        let listed = far(&["list", "--json"]).await.ok().json();
        let listed = listed.as_array().unwrap();
        let told: Vec<_> = listed.iter().map(|one| (one["name"].as_str().unwrap(), one["members"].as_u64())).collect();
        assert_eq!(told, [("Finance", Some(0)), ("Sales", Some(2))]);
        assert_eq!(said(&["members", listed[1]["guid"].as_str().unwrap()]).await.trim(), members, "by its guid too");
        assert_eq!(said(&["remove", "Finance"]).await, "removed: Finance\n");
        assert!(!said(&["list"]).await.contains("Finance"));
        for (arguments, words) in [
            (&["create", "Sales"][..], "There is a group `Sales` already"),
            (&["create", " "], "A group has a name"),
            (&["add", "Sales", "dee"], "There is no user `dee`"),
            (&["add", "Finance", "ann"], "There is no group `Finance`"),
            (&["remove", "Finance"], "There is no group `Finance`"),
        ] {
            let refused = far(arguments).await;
            assert!(refused.code == Some(1) && refused.stderr.contains(words), "{arguments:?}: {refused:?}");
        }
        assert_eq!(far(&["add", "Sales"]).await.code, Some(64), "whom?");
        let audit = a.command(&["audit"]).await;
        assert!(audit.contains("create_group") && audit.contains("add_member"), "{audit}");
    });
}
