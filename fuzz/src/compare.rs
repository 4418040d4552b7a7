//! Lays two accounts beside each other.

use crate::account::{Line, kind, names};
use crate::lane::Lane;

/// What is wrong: a fault of one run, or the first thing in which two differ, and the others.
#[derive(Clone, Debug)]
pub(crate) struct Difference {
    /// Where it shows.
    pub(crate) lane: Lane,
    /// What findings are told apart by.
    pub(crate) kind: String,
    /// For people: each line that differs, of the first lane and of this one.
    pub(crate) text: String,
}

impl Difference {
    /// A run is wrong by itself.
    pub(crate) fn fault(lane: Lane, fault: String) -> Self {
        let kind = format!("{}: fault: {}", lane.name(), fault.split(": ").next().unwrap_or_default());
        Self { lane, kind, text: format!("{}: {fault}\n", lane.name()) }
    }
}

/// Lines that are shown, and characters of each.
const LINES: usize = 12;
const SHOWN: usize = 400;

/// `None`: they are alike.
pub(crate) fn difference(lane: Lane, first: &[Line], other: &[Line]) -> Option<Difference> {
    let mut lines: Vec<(&str, Option<&str>, Option<&str>)> = Vec::new();
    for (about, _) in first.iter().chain(other.iter().filter(|(about, _)| find(first, about).is_none())) {
        // What HTTP/2 does not have is not in its account.
        if lane == Lane::H2
            && (about.ends_with("reason") || ["end", "answers rest", "answers broken"].contains(&&**about))
        {
            continue;
        }
        let (one, another) = (find(first, about), find(other, about));
        if one != another {
            lines.push((about, one, another));
        }
    }
    let (about, one, another) = *lines.first()?;
    let show = |side: Option<&str>| side.unwrap_or("(nothing)").chars().take(SHOWN).collect::<String>();
    let mut text = String::new();
    for (about, one, another) in lines.iter().take(LINES) {
        text.push_str(&format!("{about}\n  whole: {}\n  {}: {}\n", show(*one), lane.name(), show(*another)));
    }
    Some(Difference { lane, kind: format!("{}: {}", lane.name(), of_kind(about, one, another)), text })
}

fn find<'a>(account: &'a [Line], about: &str) -> Option<&'a str> {
    account.iter().find(|(a, _)| a == about).map(|(_, seen)| seen.as_str())
}

/// Short values belong to the kind; of long ones only what they are about, and of fields which.
fn of_kind(about: &str, one: Option<&str>, another: Option<&str>) -> String {
    let about = kind(about);
    if (about.ends_with("fields") || about == "interim")
        && let (Some(one), Some(another)) = (one, another)
    {
        let (one, another): (Vec<_>, Vec<_>) = (one.lines().collect(), another.lines().collect());
        let only = |a: &[&str], b: &[&str]| {
            let lines: Vec<_> = a.iter().filter(|line| !b.contains(line)).copied().collect();
            names(&lines.join("\n")).join(",")
        };
        return format!("{about}: {} / {}", only(&one, &another), only(&another, &one));
    }
    let short = |side: Option<&str>| match side {
        None => "none".to_owned(),
        Some(_) if about.ends_with("body") || about.ends_with("line") || about.ends_with("rest") => "some".into(),
        Some(_) if about.contains("bytes_") || about.ends_with("path") || about.ends_with("address") => "some".into(),
        Some(value) => value.lines().next().unwrap_or_default().chars().take(30).collect(),
    };
    format!("{about}: {} / {}", short(one), short(another))
}
