use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::making::{self, Authority, NOW, ecdsa, generate, pem, put, put_key, rsa, rsa_pkcs1, sec1, self_signed};
use super::*;

struct Folder {
    dir: tempfile::TempDir,
    ca: Authority,
}

impl Folder {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("folder"), ca: Authority::new("test root") }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn put(&self, name: &str, names: &[&str]) -> &Self {
        put(self.path(), name, &self.ca.issue(names));
        self
    }

    fn put_years(&self, name: &str, names: &[&str], years: std::ops::Range<i32>) -> &Self {
        put(self.path(), name, &self.ca.issue_with(names, years, &ecdsa()));
        self
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> &Self {
        fs::write(self.path().join(name), text).expect("written");
        self
    }

    fn load(&self) -> (Option<Certificates>, Vec<CertificateProblem>) {
        Certificates::load(self.path(), NOW)
    }

    fn clean(&self) -> Certificates {
        let (certificates, problems) = self.load();
        assert_eq!(problems, []);
        certificates.expect("certificates")
    }

    /// The one cause, with the file's name.
    fn cause(&self) -> (String, Cause) {
        let (_, mut problems) = self.load();
        assert_eq!(problems.len(), 1, "{problems:?}");
        let problem = problems.remove(0);
        assert!(!problem.remedy().is_empty());
        assert!(problem.to_string().contains(&problem.file.display().to_string()));
        (problem.file.file_name().expect("a name").to_string_lossy().into_owned(), problem.cause)
    }
}

/// Which file's certificate answers, by comparing with what the file holds.
fn answers(certificates: &Certificates, sni: Option<&str>, folder: &Folder) -> String {
    let key = certificates.resolve(sni).expect("somebody always answers");
    let mut names: Vec<_> = fs::read_dir(folder.path()).expect("listed").flatten().map(|e| e.path()).collect();
    names.sort();
    for path in names {
        let Ok(text) = fs::read(&path) else { continue };
        use rustls_pki_types::pem::PemObject;
        if rustls_pki_types::CertificateDer::from_pem_slice(&text).is_ok_and(|c| c == key.cert[0]) {
            return path.file_stem().expect("a name").to_string_lossy().into_owned();
        }
    }
    panic!("the certificate is in no file");
}

#[test]
fn an_exact_name_wins_over_a_wildcard_and_both_over_the_default() {
    let folder = Folder::new();
    folder.put("a-first", &["first.example"]);
    folder.put("exact", &["app.example.org", "10.1.2.3", "2001:db8::1"]);
    folder.put("wild", &["*.example.org", "example.org"]);
    let all = folder.clean();
    assert_eq!(all.count(), 3);
    for (sni, expected) in [
        (Some("app.example.org"), "exact"),
        (Some("APP.Example.ORG."), "exact"),
        (Some("other.example.org"), "wild"),
        (Some("example.org"), "wild"),
        // A wildcard stands for one label.
        (Some("a.b.example.org"), "a-first"),
        (Some("nobody.example"), "a-first"),
        (Some("org"), "a-first"),
        (Some(""), "a-first"),
        (Some("10.1.2.3"), "exact"),
        (Some("2001:db8::1"), "exact"),
        // Without a name: who has an IP address.
        (None, "exact"),
    ] {
        assert_eq!(answers(&all, sni, &folder), expected, "{sni:?}");
    }
}

#[test]
fn default_is_what_is_called_so_else_the_first() {
    let folder = Folder::new();
    folder.put("zebra", &["zebra.example", "127.0.0.1"]).put("apple", &["apple.example"]);
    let all = folder.clean();
    assert_eq!(answers(&all, Some("x.example"), &folder), "apple");
    assert_eq!(answers(&all, None, &folder), "zebra");
    folder.put("default", &["other.example"]);
    let all = folder.clean();
    assert_eq!(answers(&all, Some("x.example"), &folder), "default");
    assert_eq!(answers(&all, None, &folder), "default");
}

#[test]
fn every_kind_and_encoding_of_key_is_read() {
    let folder = Folder::new();
    let p384 = generate(&rcgen::PKCS_ECDSA_P384_SHA384);
    let ed25519 = generate(&rcgen::PKCS_ED25519);
    let p256 = ecdsa();
    for (name, key, text) in [
        ("rsa8", &rsa(), rsa().serialize_pem()),
        ("rsa1", &rsa(), rsa_pkcs1()),
        ("p256", &p256, p256.serialize_pem()),
        ("sec1", &p256, sec1(&p256)),
        ("p384", &p384, p384.serialize_pem()),
        ("ed25519", &ed25519, ed25519.serialize_pem()),
    ] {
        let mut issued = folder.ca.issue_with(&[&format!("{name}.example")], 2020..2120, key);
        issued.key = text;
        put(folder.path(), name, &issued);
    }
    let all = folder.clean();
    for name in ["rsa8", "rsa1", "p256", "sec1", "p384", "ed25519"] {
        assert_eq!(answers(&all, Some(&format!("{name}.example")), &folder), name);
    }
}

#[test]
fn every_way_to_name_a_pair_is_understood() {
    let folder = Folder::new();
    let issue = |name: &str| folder.ca.issue(&[name]);
    let pair = |certificate: &str, key: &str| {
        let issued = issue(&format!("{certificate}.example"));
        folder.write(certificate, &issued.chain);
        put_key(&folder.path().join(key), &issued.key, 0o640);
    };
    pair("a.crt", "a.key");
    pair("b.pem", "b.key");
    pair("c.cer", "c.key");
    pair("d.pem", "d-key.pem");
    pair("e.pem", "e.key.pem");
    pair("cert.pem", "key.pem");
    pair("G.CRT", "G.key");
    let both = issue("f.pem.example");
    put_key(&folder.path().join("f.pem"), &format!("{}{}", both.chain, both.key), 0o600);
    // The key first, as HAProxy users also have it.
    let both = issue("h.pem.example");
    put_key(&folder.path().join("h.pem"), &format!("{}{}", both.key, both.chain), 0o600);
    // What belongs to nobody.
    folder.write("README", "read me").write(".hidden.crt", "junk").write("notes.txt", "junk");
    fs::create_dir(folder.path().join("empty")).expect("folder");
    let all = folder.clean();
    let names: Vec<String> = all.not_after().into_iter().map(|(name, _)| name).collect();
    let expected = ["a.crt", "b.pem", "c.cer", "cert.pem", "d.pem", "e.pem", "f.pem", "g.crt", "h.pem"];
    assert_eq!(names, expected.map(|n| format!("{n}.example")));
}

#[test]
fn certbot_folders_are_read_through_their_links() {
    let folder = Folder::new();
    for name in ["one.example", "two.example"] {
        let (live, archive) = (folder.path().join(name), folder.path().join(format!(".archive-{name}")));
        fs::create_dir(&live).expect("folder");
        fs::create_dir(&archive).expect("folder");
        let issued = folder.ca.issue(&[name]);
        fs::write(archive.join("fullchain1.pem"), &issued.chain).expect("written");
        fs::write(archive.join("cert1.pem"), &issued.chain).expect("written");
        put_key(&archive.join("privkey1.pem"), &issued.key, 0o600);
        for part in ["fullchain", "cert", "privkey"] {
            symlink(archive.join(format!("{part}1.pem")), live.join(format!("{part}.pem"))).expect("link");
        }
    }
    let all = folder.clean();
    assert_eq!(all.not_after().iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["one.example", "two.example"]);
    // The folder of one name, given directly.
    let (one, problems) = Certificates::load(&folder.path().join("one.example"), NOW);
    assert_eq!(problems, []);
    assert_eq!(one.expect("one").count(), 1);
}

#[test]
fn kubernetes_secrets_are_read_through_their_links() {
    let folder = Folder::new();
    let data = folder.path().join("..2027_01_15");
    fs::create_dir(&data).expect("folder");
    put(&data, "tls", &folder.ca.issue(&["k.example"]));
    fs::write(data.join("ca.crt"), &folder.ca.pem).expect("written");
    symlink("..2027_01_15", folder.path().join("..data")).expect("link");
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        symlink(format!("..data/{name}"), folder.path().join(name)).expect("link");
    }
    let (all, problems) = folder.load();
    assert_eq!(all.expect("a pair").count(), 1);
    let causes: Vec<_> = problems.iter().map(|p| &p.cause).collect();
    assert_eq!(causes, [&Cause::OnlyAuthorities]);
}

#[test]
fn a_folder_without_pairs_is_a_problem() {
    let folder = Folder::new();
    let (none, problems) = folder.load();
    assert!(none.is_none());
    assert_eq!(problems.len(), 1);
    assert_eq!((&problems[0].cause, problems[0].severity()), (&Cause::NothingHere, Severity::Refused));
    let (none, problems) = Certificates::load(&folder.path().join("absent"), NOW);
    assert!(none.is_none());
    assert!(matches!(problems[0].cause, Cause::FolderUnreadable(_)), "{problems:?}");
}

#[test]
fn each_thing_wrong_is_named_with_its_file_and_a_remedy() {
    let good = |folder: &Folder| folder.ca.issue(&["x.example"]);
    type Case = (&'static str, fn(&Folder, making::Issued), &'static str, fn(&Cause) -> bool);
    let cases: [Case; 15] = [
        (
            "no key",
            |f, x| {
                f.write("x.crt", x.chain);
            },
            "x.crt",
            |c| matches!(c, Cause::NoKey { looked_for } if looked_for == "x.key"),
        ),
        (
            "another's key",
            |f, x| put(f.path(), "x", &making::Issued { key: ecdsa().serialize_pem(), ..x }),
            "x.key",
            |c| matches!(c, Cause::KeyMismatch { certificate } if certificate.ends_with("x.crt")),
        ),
        (
            "another's key of another kind",
            |f, x| put(f.path(), "x", &making::Issued { key: rsa().serialize_pem(), ..x }),
            "x.key",
            |c| matches!(c, Cause::KeyMismatch { .. }),
        ),
        (
            "readable by everybody",
            |f, x| {
                put(f.path(), "x", &x);
                put_key(&f.path().join("x.key"), &x.key, 0o644);
            },
            "x.key",
            |c| *c == Cause::KeyOpen { mode: 0o644 },
        ),
        (
            "key in a certificate everybody may read",
            |f, x| put_key(&f.path().join("x.pem"), &(x.chain + &x.key), 0o644),
            "x.pem",
            |c| *c == Cause::KeyOpen { mode: 0o644 },
        ),
        (
            "upside down",
            |f, x| put(f.path(), "x", &making::Issued { chain: f.ca.pem.clone() + &x.chain, ..x }),
            "x.crt",
            |c| *c == Cause::LeafNotFirst { position: 2 },
        ),
        (
            "junk",
            |f, x| put(f.path(), "x", &making::Issued { chain: "junk".into(), ..x }),
            "x.crt",
            |c| *c == Cause::NoCertificate,
        ),
        (
            "PEM around junk",
            |f, x| put(f.path(), "x", &making::Issued { chain: pem("CERTIFICATE", "AAAA\n"), ..x }),
            "x.crt",
            |c| matches!(c, Cause::Malformed { position: 1, .. }),
        ),
        (
            "binary",
            |f, x| {
                use rustls_pki_types::pem::PemObject;
                let der = rustls_pki_types::CertificateDer::from_pem_slice(x.chain.as_bytes()).expect("PEM");
                f.write("x.cer", &*der);
            },
            "x.cer",
            |c| *c == Cause::NotPem,
        ),
        (
            "a key where a certificate is promised",
            |f, x| put_key(&f.path().join("x.pem"), &x.key, 0o600),
            "x.pem",
            |c| *c == Cause::OnlyAKey,
        ),
        (
            "no key in the key's file",
            |f, x| put(f.path(), "x", &making::Issued { key: x.chain.clone(), ..x }),
            "x.key",
            |c| *c == Cause::NoPrivateKey,
        ),
        (
            "encrypted",
            |f, x| put(f.path(), "x", &making::Issued { key: pem("ENCRYPTED PRIVATE KEY", "AAAA\n"), ..x }),
            "x.key",
            |c| *c == Cause::KeyEncrypted,
        ),
        (
            "a kind of key nobody can use",
            |f, x| put(f.path(), "x", &making::Issued { key: pem("PRIVATE KEY", making::P521_PKCS8), ..x }),
            "x.key",
            |c| matches!(c, Cause::KeyUnsupported(_)),
        ),
        (
            "too large",
            |f, x| put(f.path(), "x", &making::Issued { chain: x.chain + &"#".repeat(1 << 20), key: x.key }),
            "x.crt",
            |c| *c == Cause::TooLarge,
        ),
        (
            "a dangling link",
            |f, x| {
                put_key(&f.path().join("x.key"), &x.key, 0o600);
                symlink("absent", f.path().join("x.crt")).expect("link");
            },
            "x.crt",
            |c| matches!(c, Cause::Unreadable(_)),
        ),
    ];
    for (what, make, file, is_right) in cases {
        let folder = Folder::new();
        make(&folder, good(&folder));
        let (at, cause) = folder.cause();
        assert_eq!(at, file, "{what}");
        assert!(is_right(&cause), "{what}: {cause:?}");
        let (none, problems) = folder.load();
        assert!(none.is_none(), "{what}");
        assert_eq!(problems[0].severity(), Severity::Refused, "{what}");
    }
}

#[test]
fn a_pipe_in_the_folder_is_refused_and_not_waited_for() {
    let folder = Folder::new();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        folder.path().join("x.crt"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .expect("pipe");
    assert_eq!(folder.cause(), ("x.crt".to_owned(), Cause::NotAFile));
}

#[test]
fn one_bad_pair_is_reported_and_the_others_are_loaded() {
    let folder = Folder::new();
    folder.put("good", &["good.example"]).write("bad.crt", "junk").write("worse.crt", "junk");
    let (all, problems) = folder.load();
    assert_eq!(all.expect("one").count(), 1);
    assert_eq!(problems.len(), 2);
}

#[test]
fn doubtful_pairs_are_served_with_a_warning() {
    let folder = Folder::new();
    let (root, other) = (Authority::new("root"), Authority::new("other"));
    let under = root.under("under");
    let leaf = under.issue(&["order.example"]);
    folder.put_years("expired", &["expired.example"], 2020..2021);
    folder.put_years("future", &["future.example"], 2050..2051);
    put(folder.path(), "order", &making::Issued { chain: leaf.chain + &other.pem + &under.pem, key: leaf.key });
    put(folder.path(), "nameless", &folder.ca.issue(&[]));
    let group = folder.ca.issue(&["group.example"]);
    put(folder.path(), "group", &group);
    put_key(&folder.path().join("group.key"), &group.key, 0o660);
    put_key(&folder.path().join("orphan.key"), &group.key, 0o600);
    let (all, problems) = folder.load();
    let all = all.expect("certificates");
    assert_eq!(all.count(), 5);
    assert!(problems.iter().all(|p| p.severity() == Severity::Warning));
    let causes: Vec<Cause> = problems.into_iter().map(|p| p.cause).collect();
    assert_eq!(
        causes,
        [
            Cause::KeyAlone,
            Cause::Expired { since: 1_609_459_200 },
            Cause::NotYetValid { from: 2_524_608_000 },
            Cause::KeyGroupWritable { mode: 0o660 },
            Cause::NoAlternativeName,
            Cause::ChainOrder { position: 2 },
            Cause::ChainOrder { position: 3 },
        ]
        .to_vec()
    );
    assert_eq!(answers(&all, Some("expired.example"), &folder), "expired");
    assert_eq!(answers(&all, Some("cn.example"), &folder), "nameless");
    assert_eq!(Cause::Expired { since: 1_609_459_200 }.to_string(), "has expired at 2021-01-01T00:00:00Z");
}

#[test]
fn a_refused_pair_keeps_its_predecessor_and_hinders_no_other() {
    let folder = Folder::new();
    folder.put("a", &["a.example"]).put("b", &["b.example"]).put("c", &["c.example"]);
    let before = folder.clean();
    // One is renewed, one half, one is gone.
    folder.put("a", &["a.example"]).write("b.crt", "junk");
    fs::remove_file(folder.path().join("c.crt")).expect("removed");
    let (loaded, problems) = folder.load();
    assert!(problems.iter().any(|p| p.severity() == Severity::Refused));
    let after = loaded.expect("one").with_refused_from(&before);
    let leaf = |all: &Certificates, name| all.resolve(Some(name)).expect("a certificate").cert[0].to_vec();
    assert_ne!(leaf(&after, "a.example"), leaf(&before, "a.example"));
    assert_eq!(leaf(&after, "b.example"), leaf(&before, "b.example"));
    assert_eq!(after.count(), 2);
}

#[test]
fn an_old_certificate_without_extensions_is_served() {
    let folder = Folder::new();
    let issued =
        making::Issued { chain: pem("CERTIFICATE", making::V1_CERTIFICATE), key: pem("PRIVATE KEY", making::V1_KEY) };
    put(folder.path(), "old", &issued);
    let (all, problems) = folder.load();
    assert_eq!(problems.iter().map(|p| &p.cause).collect::<Vec<_>>(), [&Cause::NoAlternativeName]);
    assert_eq!(answers(&all.expect("one"), Some("old.example"), &folder), "old");
}

#[test]
fn of_two_pairs_with_one_name_the_one_valid_longest_wins_and_the_other_is_told_of_once() {
    let folder = Folder::new();
    folder.put_years("a", &["x.example", "y.example", "only-a.example"], 2020..2040);
    folder.put_years("b", &["x.example", "y.example"], 2020..2041);
    // Longest of all, but nobody accepts it yet.
    folder.put_years("c", &["x.example"], 2050..2060);
    let (all, problems) = folder.load();
    let all = all.expect("certificates");
    assert_eq!(answers(&all, Some("x.example"), &folder), "b");
    assert_eq!(answers(&all, Some("only-a.example"), &folder), "a");
    let duplicates: Vec<String> = problems
        .iter()
        .filter(|p| matches!(p.cause, Cause::DuplicateName { .. }))
        .map(|p| p.cause.to_string())
        .collect();
    let winner = folder.path().join("b.crt");
    assert_eq!(
        duplicates,
        [
            format!("is not used for `x.example` and 1 more: `{}` is valid longer", winner.display()),
            format!("is not used for `x.example`: `{}` is valid longer", winner.display()),
        ]
    );
    assert!(all.not_after().contains(&("x.example".to_owned(), 2_240_611_200)));
}

#[test]
fn rsa_and_ecdsa_of_one_name_stand_side_by_side() {
    use rustls::SignatureScheme as Scheme;
    let folder = Folder::new();
    put(folder.path(), "rsa", &folder.ca.issue_with(&["x.example"], 2020..2120, &rsa()));
    put(folder.path(), "ecdsa", &folder.ca.issue(&["x.example"]));
    let all = folder.clean();
    let kind = |schemes: &[Scheme]| all.resolve_for(Some("x.example"), schemes).expect("one").key.algorithm();
    assert_eq!(kind(&[Scheme::RSA_PSS_SHA256, Scheme::ECDSA_NISTP256_SHA256]), rustls::SignatureAlgorithm::ECDSA);
    assert_eq!(kind(&[Scheme::RSA_PSS_SHA256]), rustls::SignatureAlgorithm::RSA);
    assert_eq!(kind(&[Scheme::ED25519]), rustls::SignatureAlgorithm::ECDSA);
}

#[test]
fn a_reload_never_replaces_a_valid_pair_by_an_expired_one() {
    let folder = Folder::new();
    folder.put("default", &["d.example"]).put("a", &["a.example", "both.example"]).put("gone", &["gone.example"]);
    let before = folder.clean();
    folder.put_years("default", &["d.example"], 2020..2021);
    folder.put_years("a", &["a.example", "new.example"], 2020..2021);
    for name in ["gone.crt", "gone.key"] {
        fs::remove_file(folder.path().join(name)).expect("removed");
    }
    let (after, _) = folder.load();
    let (after, problems) = after.expect("certificates").succeed(&before);
    assert_eq!(
        problems.iter().map(|p| &p.cause).collect::<Vec<_>>(),
        [&Cause::PredecessorKept, &Cause::PredecessorKept]
    );
    let same = |name: Option<&str>, old: &str| {
        let kept = before.resolve(Some(old)).expect("before");
        after.resolve(name).expect("after").cert == kept.cert
    };
    assert!(same(Some("a.example"), "a.example"));
    assert!(same(Some("both.example"), "a.example"));
    assert!(same(Some("d.example"), "d.example"));
    assert!(same(Some("unknown.example"), "d.example"), "the default too");
    assert!(same(None, "d.example"));
    assert!(same(Some("gone.example"), "d.example"), "what was removed is gone");
    assert!(!same(Some("new.example"), "a.example"), "the expired one answers where it has no rival");

    // A second reload keeps it too, and a valid successor ends that.
    let (again, _) = folder.load();
    let (again, problems) = again.expect("certificates").succeed(&after);
    assert_eq!(problems.len(), 2);
    assert_eq!(
        again.resolve(Some("a.example")).expect("kept").cert,
        before.resolve(Some("a.example")).expect("x").cert
    );
    folder.put("a", &["a.example"]).put("default", &["d.example"]);
    let (renewed, problems) = folder.clean().succeed(&again);
    assert_eq!(problems, []);
    assert_eq!(renewed.count(), 2);
    assert_eq!(answers(&renewed, Some("a.example"), &folder), "a");
}

#[test]
fn a_reload_takes_what_is_there_when_nothing_expired() {
    let folder = Folder::new();
    folder.put_years("a", &["a.example"], 2020..2119);
    let before = folder.clean();
    // Shorter, but valid: the operator's will.
    folder.put_years("a", &["a.example"], 2020..2030);
    let (after, problems) = folder.clean().succeed(&before);
    assert_eq!(problems, []);
    assert_eq!(answers(&after, Some("a.example"), &folder), "a");
    // Both expired: the new one.
    folder.put_years("a", &["a.example"], 2020..2022);
    let (old, _) = folder.load();
    let old = old.expect("old");
    folder.put_years("a", &["a.example"], 2020..2023);
    let (new, _) = folder.load();
    let (new, problems) = new.expect("new").succeed(&old);
    assert_eq!(problems, []);
    assert_eq!(answers(&new, Some("a.example"), &folder), "a");
}

#[test]
fn a_self_signed_certificate_is_a_pair_like_any_other() {
    let folder = Folder::new();
    put(folder.path(), "own", &self_signed(&["own.example"], 2020..2120, rcgen::IsCa::ExplicitNoCa));
    assert_eq!(answers(&folder.clean(), Some("own.example"), &folder), "own");
}

#[test]
fn more_pairs_than_the_bound_are_cut_off_and_told_of() {
    let folder = Folder::new();
    for i in 0..10_001 {
        folder.write(&format!("{i}.crt"), "");
    }
    let (none, problems) = folder.load();
    assert!(none.is_none());
    assert_eq!(problems.len(), 10_001);
    assert_eq!(problems[0].cause, Cause::TooMany(10_000));
}
