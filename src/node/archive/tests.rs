use std::io::{Seek, Write};

use super::*;

#[test]
fn what_stays_inside_and_what_does_not() {
    assert!(is_inside("a/b") && is_inside("a..b/c"));
    for outside in ["", "/a", "a/../b", "..", "a\\b", "a\0b"] {
        assert!(!is_inside(outside), "{outside:?}");
    }
    assert!(stays("a/b", "../c") && stays("a/b", "../../c"));
    assert!(stays("a", "./.././b") && stays("", "b/c") && stays("a", ".."));
    for (folder, target) in [("a", "../../c"), ("a", "/etc/passwd"), ("", ".."), ("a/b", "c/.."), ("a/b", "../c/../d")]
    {
        assert!(!stays(folder, target), "{folder} {target}");
    }
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

/// An entry as the directory of a zip has it, and as it has it itself.
#[derive(Clone)]
struct Entry {
    name: &'static str,
    own_name: &'static str,
    text: &'static str,
    flags: u16,
    /// What it says it unpacks to.
    size: u32,
    /// Of Unix.
    mode: u32,
    /// In the directory.
    is_listed: bool,
}

fn entry(name: &'static str, text: &'static str) -> Entry {
    Entry { name, own_name: name, text, flags: 0, size: text.len() as u32, mode: 0o100_644, is_listed: true }
}

/// A zip of these, stored, byte for byte as APPNOTE 4.3 has it.
fn zip(entries: &[Entry]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    let listed = entries.iter().filter(|entry| entry.is_listed).count() as u16;
    for entry in entries {
        let mut crc = flate2::Crc::new();
        crc.update(entry.text.as_bytes());
        let start = out.len() as u32;
        let mut common = Vec::new();
        for word in [20, entry.flags, 0, 0, 0x21] {
            common.extend(u16::to_le_bytes(word));
        }
        for long in [crc.sum(), entry.text.len() as u32, entry.size] {
            common.extend(u32::to_le_bytes(long));
        }
        out.extend(b"PK\x03\x04");
        out.extend(&common);
        out.extend((entry.own_name.len() as u16).to_le_bytes());
        out.extend([0; 2]);
        out.extend(entry.own_name.as_bytes());
        out.extend(entry.text.as_bytes());
        if entry.is_listed {
            directory.extend(b"PK\x01\x02\x14\x03");
            directory.extend(&common);
            directory.extend((entry.name.len() as u16).to_le_bytes());
            directory.extend([0; 8]);
            directory.extend((entry.mode << 16).to_le_bytes());
            directory.extend(start.to_le_bytes());
            directory.extend(entry.name.as_bytes());
        }
    }
    let start = out.len() as u32;
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend(listed.to_le_bytes());
    out.extend(listed.to_le_bytes());
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0; 2]);
    out
}

#[test]
fn a_zip_that_programs_could_read_differently_is_refused() {
    let (a, b) = (entry("a", "text of a"), entry("b", "text of b"));
    let good = zip(&[a.clone(), b.clone()]);
    let mut read = Zip::open(file(&good)).unwrap();
    assert_eq!(read.names(), ["a", "b"]);
    assert_eq!(read.read("a", 9).unwrap(), b"text of a");
    assert!(read.read("a", 8).unwrap_err().contains("larger than 8"));

    let with = |change: &dyn Fn(&mut Entry)| {
        let mut changed = b.clone();
        change(&mut changed);
        zip(&[a.clone(), changed])
    };
    let end = good.len() - 22;
    let mut fewer = good.clone();
    fewer[end + 8..end + 12].copy_from_slice(&[1, 0, 1, 0]);
    let mut commented = good.clone();
    commented[end + 20] = 4;
    commented.extend(b"text");
    let mut larger = good.clone();
    larger[18] += 1;
    let inner = zip(&[entry("c", "x")]);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("an entry outside", with(&|b| (b.name, b.own_name) = ("../b", "../b"))),
        ("an absolute one", with(&|b| (b.name, b.own_name) = ("/b", "/b"))),
        ("one of Windows", with(&|b| (b.name, b.own_name) = ("c\\b", "c\\b"))),
        ("a link", with(&|b| b.mode = 0o120_777)),
        ("a device", with(&|b| b.mode = 0o020_644)),
        ("an encrypted one", with(&|b| b.flags = 1)),
        ("another name at the entry", with(&|b| b.own_name = "c")),
        ("one name twice", with(&|b| (b.name, b.own_name) = ("a", "a"))),
        ("one name in two cases", with(&|b| (b.name, b.own_name) = ("A", "A"))),
        ("an entry that is not in the directory", with(&|b| b.is_listed = false)),
        ("one that the end does not count", fewer),
        ("bytes before", [b"#!/bin/sh\n", &good[..]].concat()),
        ("bytes behind", [&good[..], b"x"].concat()),
        ("a zip behind", [&good[..], &inner[..]].concat()),
        ("a zip before", [&inner[..], &good[..]].concat()),
        ("a comment", commented),
        ("another size at the entry", larger),
        ("half", good[..good.len() / 2].to_vec()),
    ];
    let taken: Vec<_> =
        cases.iter().filter(|(_, bytes)| Zip::open(file(bytes)).is_ok()).map(|(name, _)| *name).collect();
    assert_eq!(taken, [""; 0]);
}

#[test]
fn zips_are_taken_as_programs_write_them() {
    let options = zip::write::SimpleFileOptions::default();
    let fill = |mut out: zip::ZipWriter<_>| {
        for (name, options) in [("a/b", options), ("large", options.large_file(true))] {
            out.start_file(name, options).unwrap();
            out.write_all(b"text").unwrap();
        }
        out.add_directory("folder", options).unwrap();
        out.finish().unwrap()
    };
    let whole = fill(zip::ZipWriter::new(io::Cursor::new(Vec::new()))).into_inner();
    assert_eq!(Zip::open(file(&whole)).unwrap().read("large", 4).unwrap(), b"text");

    // To where nobody can go back: sizes follow the bytes.
    let mut out = zip::ZipWriter::new_stream(Vec::new());
    for name in ["a", "b"] {
        out.start_file(name, options).unwrap();
        out.write_all(b"text").unwrap();
    }
    let streamed = out.finish().unwrap().into_inner();
    assert_eq!(Zip::open(file(&streamed)).unwrap().names(), ["a", "b"]);
    let at = streamed.windows(4).position(|bytes| bytes == b"PK\x07\x08").unwrap();
    let mut lying = streamed;
    lying[at + 8] += 1;
    assert!(Zip::open(file(&lying)).is_err());
}

#[test]
fn a_zip_that_unpacks_to_much_more_is_refused() {
    const NAMES: [&str; 17] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q"];
    let large = |name| Entry { size: u32::MAX - 1, ..entry(name, "x") };
    let told = Zip::open(file(&zip(&NAMES.map(large)))).err().unwrap();
    assert!(told.contains("more than 64 GiB"), "{told}");
    let many: Vec<_> = std::iter::repeat_n(entry("a", ""), 60_000).collect();
    assert!(Zip::open(file(&zip(&many))).is_err());
}

/// A tarball of what this adds, gzipped.
fn tarball(add: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    add(&mut out);
    gzip(&out.into_inner().unwrap())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// Adds an entry of any kind and name, which the crate itself would refuse to write.
fn add(out: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, name: &str, link: &str, text: &str) {
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    out.append(&header, text.as_bytes()).unwrap();
}

#[test]
fn a_tarball_with_what_leads_outside_or_is_no_file_is_refused() {
    use tar::EntryType as Kind;
    let look = |bytes: &[u8]| Tar::look(file(bytes), |name| name == "p/INFO", 100);
    let with = |kind, name: &str, link: &str| {
        tarball(|out| {
            add(out, Kind::Regular, "p/INFO", "", "text");
            add(out, kind, name, link, "");
        })
    };
    let all = |entries: &[(Kind, &str, &str)]| {
        tarball(|out| {
            add(out, Kind::Regular, "p/INFO", "", "text");
            entries.iter().for_each(|(kind, name, link)| add(out, *kind, name, link, ""));
        })
    };
    for fine in [
        with(Kind::Regular, "p/a", ""),
        with(Kind::Symlink, "p/b/c", "../INFO"),
        with(Kind::Link, "p/d", "p/INFO"),
        all(&[(Kind::Symlink, "p/lib", "lib64"), (Kind::Regular, "p/lib64/x", ""), (Kind::Regular, "p/lib.x", "")]),
    ] {
        assert_eq!(look(&fine).unwrap().read, [("p/INFO".to_owned(), b"text".to_vec())]);
    }
    let plain = tarball(|out| add(out, Kind::Regular, "p/INFO", "", "text"));
    let mut open_end = tar::Builder::new(Vec::new());
    add(&mut open_end, Kind::Regular, "p/INFO", "", "text");
    let open_end = open_end.get_ref().clone();
    let evil = with(Kind::Regular, "../evil", "");
    let raw = |bytes: &[u8]| {
        let mut out = Vec::new();
        MultiGzDecoder::new(bytes).read_to_end(&mut out).unwrap();
        out
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("an entry outside", evil.clone()),
        ("an absolute one", with(Kind::Regular, "/etc/evil", "")),
        ("a link outside", with(Kind::Symlink, "p/l", "../../x")),
        ("an absolute link", with(Kind::Symlink, "p/l", "/etc")),
        ("a hard link outside", with(Kind::Link, "p/l", "../x")),
        ("a device", with(Kind::Char, "p/c", "")),
        ("a disk", with(Kind::Block, "p/b", "")),
        ("a pipe", with(Kind::Fifo, "p/f", "")),
        ("the same twice", with(Kind::Regular, "p/INFO", "")),
        ("the same twice, once differently", with(Kind::Regular, "./p/INFO", "")),
        (
            "a long name outside",
            tarball(|out| {
                add(out, Kind::Regular, "p/INFO", "", "text");
                add(out, Kind::GNULongName, "x", "", "../../evil");
                add(out, Kind::Regular, "p/fine", "", "");
            }),
        ),
        (
            "a name outside in an extended header",
            tarball(|out| {
                add(out, Kind::Regular, "p/INFO", "", "text");
                add(out, Kind::XHeader, "x", "", "16 path=../evil\n");
                add(out, Kind::Regular, "p/fine", "", "");
            }),
        ),
        ("a link through another one", all(&[(Kind::Symlink, "p/d/l", ".."), (Kind::Symlink, "p/l2", "d/l/../..")])),
        ("a link below another one", all(&[(Kind::Symlink, "p/d/l", "../.."), (Kind::Symlink, "p/d/l/m", "..")])),
        ("a file below a link", all(&[(Kind::Regular, "p/l/x", ""), (Kind::Symlink, "p/l", "d")])),
        ("a hard link to a link", all(&[(Kind::Symlink, "p/d/l", "../.."), (Kind::Link, "l", "./p/d/l")])),
        ("a link whose name ends in a slash", all(&[(Kind::Symlink, "p/l/", "../..")])),
        ("a link to another such file", all(&[(Kind::Symlink, "p/INFO", "x")])),
        ("half", plain[..plain.len() / 2].to_vec()),
        ("another gzip behind", [gzip(&open_end), evil.clone()].concat()),
        ("another tarball behind the end", gzip(&[raw(&plain), raw(&evil)].concat())),
        ("another gzip behind the end", [plain.clone(), evil].concat()),
        ("a wrong checksum", {
            let mut bad = plain.clone();
            let at = bad.len() - 6;
            bad[at] ^= 1;
            bad
        }),
    ];
    let taken: Vec<_> = cases
        .iter()
        .filter(|(_, bytes)| look(bytes).is_ok_and(|found| !found.read.is_empty()))
        .map(|(name, _)| *name)
        .collect();
    assert_eq!(taken, [""; 0]);
    let large = tarball(|out| add(out, Kind::Regular, "p/INFO", "", &"x".repeat(101)));
    assert!(look(&large).err().unwrap().contains("larger than 100"));
}

#[test]
fn a_tarball_that_unpacks_without_end_is_not_unpacked_to_its_end() {
    let mut bomb = Limited { inner: io::repeat(0), left: 1 << 20 };
    let ended = io::copy(&mut bomb, &mut io::sink()).unwrap_err();
    assert!(ended.to_string().contains("more than 8 GiB"), "{ended}");
}
