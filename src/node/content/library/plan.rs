//! In which order packages are installed, and what each installed one is called: by all that made it what it is. Pure.

use std::collections::HashMap;

use sha2::Digest;

use crate::types::Sha256;

/// A package that is to be in a library.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub name: String,
    pub version: String,
    pub from: From,
    /// Packages it does not work without.
    pub needs: Vec<String>,
}

/// Where it is from.
#[derive(Clone, Debug)]
pub(super) enum From {
    /// A file of this digest.
    Source(Sha256),
    /// This machine's folder, and by what it was built.
    System { path: std::path::PathBuf, built: String },
}

/// A package in its turn.
#[derive(Debug)]
pub(super) struct Planned {
    pub entry: Entry,
    /// The same for the same package, made of the same by the same: two versions of what it needs make two of it, because it
    /// may have compiled in what they define.
    pub key: String,
    /// All that it needs, directly or not, by their places in the plan, which are before its own.
    pub needs: Vec<usize>,
}

/// `base`: what all have in common. `own`: packages that come with R, and their versions.
///
/// # Errors
/// What is not listed, or needs itself, in a sentence.
pub(super) fn plan(entries: Vec<Entry>, base: &str, own: &HashMap<String, String>) -> Result<Vec<Planned>, String> {
    let names: HashMap<String, usize> =
        entries.iter().enumerate().map(|(at, entry)| (entry.name.clone(), at)).collect();
    let mut waits: Vec<Vec<usize>> = Vec::new();
    for entry in &entries {
        let mut needed = Vec::new();
        for need in &entry.needs {
            match names.get(need) {
                Some(at) => needed.push(*at),
                None if own.contains_key(need) => {}
                None => {
                    return Err(format!(
                        "the manifest lists the package `{}` but not `{need}`, which it needs: write it anew, with \
                         rsconnect::writeManifest()",
                        entry.name
                    ));
                }
            }
        }
        waits.push(needed);
    }
    let mut entries: Vec<Option<Entry>> = entries.into_iter().map(Some).collect();
    let mut places: Vec<Option<usize>> = vec![None; entries.len()];
    let mut plan: Vec<Planned> = Vec::new();
    while plan.len() < entries.len() {
        let before = plan.len();
        for at in 0..entries.len() {
            let Some(direct) = waits[at].iter().map(|need| places[*need]).collect::<Option<Vec<usize>>>() else {
                continue;
            };
            let Some(entry) = entries[at].take() else { continue };
            let mut needs: Vec<usize> =
                direct.iter().flat_map(|place| plan[*place].needs.iter().chain([place])).copied().collect();
            needs.sort_unstable();
            needs.dedup();
            let key = key(&entry, base, own, direct.iter().map(|place| plan[*place].key.as_str()));
            places[at] = Some(plan.len());
            plan.push(Planned { entry, key, needs });
        }
        if plan.len() == before {
            let left: Vec<String> = entries.iter().flatten().map(|entry| format!("`{}`", entry.name)).collect();
            return Err(format!("the packages {} need each other, so that none can be the first", left.join(", ")));
        }
    }
    Ok(plan)
}

fn key<'a>(entry: &Entry, base: &str, own: &HashMap<String, String>, needs: impl Iterator<Item = &'a str>) -> String {
    let mut key = sha2::Sha256::new_with_prefix(b"bowline package 1\0");
    let mut part = |text: &str| {
        key.update((text.len() as u64).to_be_bytes());
        key.update(text);
    };
    [base, &entry.name, &entry.version].into_iter().for_each(&mut part);
    match &entry.from {
        From::Source(digest) => part(&digest.to_string()),
        From::System { path, built } => part(&format!("{}\0{built}", path.display())),
    }
    let mut needs: Vec<&str> = needs.collect();
    needs.sort_unstable();
    needs.into_iter().for_each(&mut part);
    for need in &entry.needs {
        if let Some(version) = own.get(need) {
            part(&format!("{need} {version}"));
        }
    }
    Sha256::new(key.finalize().into()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, digest: u8, needs: &[&str]) -> Entry {
        let needs = needs.iter().map(|need| (*need).to_owned()).collect();
        Entry { name: name.into(), version: "1.0".into(), from: From::Source(Sha256::new([digest; 32])), needs }
    }

    fn planned(entries: Vec<Entry>) -> Vec<Planned> {
        plan(entries, "R 4.2.2", &HashMap::from([("MASS".to_owned(), "7.3".to_owned())])).unwrap()
    }

    fn key_of<'a>(plan: &'a [Planned], name: &str) -> &'a str {
        &plan.iter().find(|planned| planned.entry.name == name).unwrap().key
    }

    #[test]
    fn what_others_need_comes_first() {
        let plan = planned(vec![
            entry("a", 1, &["b", "c"]),
            entry("b", 2, &["d"]),
            entry("c", 3, &["MASS"]),
            entry("d", 4, &[]),
        ]);
        let names: Vec<&str> = plan.iter().map(|planned| planned.entry.name.as_str()).collect();
        assert_eq!(names, ["c", "d", "b", "a"]);
        let needs: Vec<&[usize]> = plan.iter().map(|planned| planned.needs.as_slice()).collect();
        assert_eq!(needs, [&[][..], &[], &[1], &[0, 1, 2]], "all that is needed, directly or not");
    }

    #[test]
    fn a_package_is_another_one_where_what_it_needs_is() {
        let one = planned(vec![entry("a", 1, &["b"]), entry("b", 2, &["c"]), entry("c", 3, &[]), entry("d", 4, &[])]);
        let two = planned(vec![entry("a", 1, &["b"]), entry("b", 2, &["c"]), entry("c", 9, &[]), entry("d", 4, &[])]);
        for name in ["a", "b", "c"] {
            assert_ne!(key_of(&one, name), key_of(&two, name), "{name}");
        }
        assert_eq!(key_of(&one, "d"), key_of(&two, "d"));
        let more = planned(vec![entry("e", 5, &[]), entry("c", 3, &[]), entry("b", 2, &["c"])]);
        assert_eq!(key_of(&one, "b"), key_of(&more, "b"), "what is beside it does not matter");
        let own = |version: &str| HashMap::from([("MASS".to_owned(), version.to_owned())]);
        let with = |base: &str, version: &str| plan(vec![entry("m", 1, &["MASS"])], base, &own(version)).unwrap();
        let first = with("R 4.2.2", "7.3");
        assert_ne!(first[0].key, with("R 4.2.2", "7.4")[0].key);
        assert_ne!(first[0].key, with("R 4.3.0", "7.3")[0].key);
        let here =
            Entry { from: From::System { path: "/usr/x/m".into(), built: "b".into() }, ..entry("m", 1, &["MASS"]) };
        assert_ne!(first[0].key, plan(vec![here], "R 4.2.2", &own("7.3")).unwrap()[0].key);
    }

    #[test]
    fn what_is_not_listed_or_needs_itself_is_told() {
        let nothing = HashMap::new();
        let lacking = plan(vec![entry("a", 1, &["b"])], "", &nothing).unwrap_err();
        assert!(lacking.contains("`a` but not `b`"), "{lacking}");
        let round = vec![entry("a", 1, &["b"]), entry("b", 1, &["a"]), entry("c", 1, &[])];
        let round = plan(round, "", &nothing).unwrap_err();
        assert!(round.contains("`a`, `b` need each other"), "{round}");
    }
}
