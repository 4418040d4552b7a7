use std::io::Write;

use super::*;

const METADATA: &str = "Metadata-Version: 2.1\nName: Alpha.Pkg\nVersion: 1.0\n";

/// What is said of a file of this name with these entries.
fn inspected(filename: &str, entries: &[(&str, &str)]) -> Result<Vec<u8>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let file = File::create(&path).unwrap();
    if filename.ends_with(".tar.gz") {
        let mut out = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
        for (name, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            out.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        out.into_inner().unwrap().finish().unwrap();
    } else {
        let mut out = zip::ZipWriter::new(file);
        for (name, text) in entries {
            out.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            out.write_all(text.as_bytes()).unwrap();
        }
        out.finish().unwrap();
    }
    let named = name::parse(filename)?;
    inspect(&path, &named, filename).map(|inspected| inspected.metadata)
}

#[test]
fn wheels_and_source_distributions_are_what_their_names_say() {
    let wheel = |info: &str, metadata: &str| {
        let [text, wheel, record] = ["METADATA", "WHEEL", "RECORD"].map(|file| format!("{info}.dist-info/{file}"));
        inspected("alpha_pkg-1.0-py3-none-any.whl", &[(&text, metadata), (&wheel, ""), (&record, "")])
    };
    assert_eq!(wheel("alpha_pkg-1.0", METADATA).unwrap(), METADATA.as_bytes());
    assert_eq!(wheel("Alpha.Pkg-1.0.0", METADATA).unwrap(), METADATA.as_bytes());
    let long = format!("{METADATA}\n{}", "x".repeat(5 << 20));
    for (info, metadata, words) in [
        ("alpha_pkg-1.1", METADATA, "another project or version"),
        ("beta-1.0", METADATA, "another project or version"),
        ("alpha_pkg-1.0", "", "another project or version"),
        ("alpha_pkg-1.0", "Name: beta\nVersion: 1.0\n", "another project or version"),
        ("alpha_pkg-1.0", "Summary: x\n\nName: alpha-pkg\nVersion: 1.0\n", "another project or version"),
        ("alpha_pkg-1.0", &format!("{METADATA}Name: beta\n"), "`name` twice"),
        ("alpha_pkg-1.0", &format!("{METADATA}version: 2.0\n"), "`version` twice"),
        ("alpha_pkg-1.0", "\0\u{1}\u{2}", "another project or version"),
        ("alpha_pkg-1.0", &long, "larger than"),
        ("deep/alpha_pkg-1.0", METADATA, "no .dist-info/METADATA"),
    ] {
        let told = wheel(info, metadata).unwrap_err();
        assert!(told.contains(words), "{info} {words}: {told}");
    }
    let info = "alpha_pkg-1.0.dist-info";
    let [metadata, file, record] = ["METADATA", "WHEEL", "RECORD"].map(|file| format!("{info}/{file}"));
    let whl = "alpha_pkg-1.0-py3-none-any.whl";
    for (entries, words) in [
        (&[(metadata.as_str(), METADATA), (file.as_str(), "")][..], "no .dist-info/RECORD"),
        (&[(metadata.as_str(), METADATA), (record.as_str(), "")], "no .dist-info/WHEEL"),
        (&[(metadata.as_str(), METADATA), ("beta-1.0.dist-info/METADATA", METADATA)], "more than one"),
    ] {
        let told = inspected(whl, entries).unwrap_err();
        assert!(told.contains(words), "{words}: {told}");
    }
    for sdist in ["alpha_pkg-1.0.tar.gz", "alpha_pkg-1.0.zip"] {
        assert_eq!(inspected(sdist, &[("alpha_pkg-1.0/PKG-INFO", METADATA)]).unwrap(), METADATA.as_bytes());
        for (entries, words) in [
            (&[("PKG-INFO", METADATA)][..], "no NAME-VERSION/PKG-INFO"),
            (&[("beta-1.0/PKG-INFO", METADATA)], "no NAME-VERSION/PKG-INFO"),
            (&[("alpha_pkg-1.0/PKG-INFO", "Name: beta\nVersion: 1.0\n")], "another project or version"),
            (&[("alpha_pkg-1.0/x/PKG-INFO", METADATA)], "no NAME-VERSION/PKG-INFO"),
        ] {
            let told = inspected(sdist, entries).unwrap_err();
            assert!(told.contains(words), "{sdist} {words}: {told}");
        }
    }
    for wrong in [
        "alpha_pkg-1.0.whl",
        "alpha_pkg-1.0-py3-none.whl",
        "alpha_pkg-1.0-py3--any.whl",
        "alpha_pkg.whl",
        "alpha_pkg-1.0-x-py3-none-any.whl",
        "alpha_pkg-1.0.egg",
        "alpha_pkg-1.0.tar.bz2",
    ] {
        assert!(inspected(wrong, &[]).is_err(), "{wrong}");
    }
}
