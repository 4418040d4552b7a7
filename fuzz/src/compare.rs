//! Lays two accounts beside each other.

use crate::account::{Line, kind, names};

/// The first thing in which two accounts differ, and the others.
#[derive(Clone, Debug)]
pub(crate) struct Difference {
    /// What findings are told apart by.
    pub(crate) kind: String,
    /// For people: each line that differs, of the lean mover and of Pingora.
    pub(crate) text: String,
}

/// Lines that are shown, and characters of each.
const LINES: usize = 12;
const SHOWN: usize = 400;

/// `None`: they are alike.
pub(crate) fn difference(lean: &[Line], pingora: &[Line]) -> Option<Difference> {
    let mut lines: Vec<(&str, Option<&str>, Option<&str>)> = Vec::new();
    for (about, _) in lean.iter().chain(pingora.iter().filter(|(about, _)| find(lean, about).is_none())) {
        let (ours, theirs) = (find(lean, about), find(pingora, about));
        if ours != theirs {
            lines.push((about, ours, theirs));
        }
    }
    let faults: Vec<_> =
        lean.iter().chain(pingora).filter(|(about, _)| about == "fault").map(|(_, seen)| seen).collect();
    if lines.is_empty() && faults.is_empty() {
        return None;
    }
    let kind = match (faults.first(), lines.first()) {
        (Some(fault), _) => format!("fault: {}", fault.split(": ").next().unwrap_or_default()),
        (None, Some((about, ours, theirs))) => of_kind(about, *ours, *theirs),
        (None, None) => return None,
    };
    let show = |side: Option<&str>| side.unwrap_or("(nothing)").chars().take(SHOWN).collect::<String>();
    let mut text = String::new();
    for (account, name) in [(lean, "lean"), (pingora, "pingora")] {
        for (_, fault) in account.iter().filter(|(about, _)| about == "fault") {
            text.push_str(&format!("fault ({name}): {fault}\n"));
        }
    }
    for (about, ours, theirs) in lines.iter().filter(|(about, ..)| *about != "fault").take(LINES) {
        text.push_str(&format!("{about}\n  lean:    {}\n  pingora: {}\n", show(*ours), show(*theirs)));
    }
    Some(Difference { kind, text })
}

fn find<'a>(account: &'a [Line], about: &str) -> Option<&'a str> {
    account.iter().find(|(a, _)| a == about).map(|(_, seen)| seen.as_str())
}

/// Short values belong to the kind; of long ones only what they are about, and of fields which.
fn of_kind(about: &str, ours: Option<&str>, theirs: Option<&str>) -> String {
    let about = kind(about);
    if (about.ends_with("fields") || about == "interim")
        && let (Some(ours), Some(theirs)) = (ours, theirs)
    {
        let (ours, theirs): (Vec<_>, Vec<_>) = (ours.lines().collect(), theirs.lines().collect());
        let only = |a: &[&str], b: &[&str]| {
            let lines: Vec<_> = a.iter().filter(|line| !b.contains(line)).copied().collect();
            names(&lines.join("\n")).join(",")
        };
        return format!("{about}: {} / {}", only(&ours, &theirs), only(&theirs, &ours));
    }
    let short = |side: Option<&str>| match side {
        None => "none".to_owned(),
        Some(_) if about.ends_with("body") || about.ends_with("line") || about.ends_with("rest") => "some".into(),
        Some(_) if about.contains("bytes_") || about.ends_with("path") || about.ends_with("address") => "some".into(),
        Some(value) => value.lines().next().unwrap_or_default().chars().take(30).collect(),
    };
    format!("{about}: {} / {}", short(ours), short(theirs))
}
