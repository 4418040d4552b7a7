//! Path → route, for one host pattern.

/// Path prefixes of one host pattern.
///
/// All texts that begin with some prefix stand side by side in the order of their bytes. So the longest prefix of a path is the
/// last entry not behind it, or what that one begins with, and so on: a search takes as many steps as the logarithm of how
/// many there are, and as prefixes are within each other.
#[derive(Debug)]
pub(super) struct Paths<T> {
    /// Sorted by prefix, once [`Paths::ready`] was called.
    entries: Vec<Entry<T>>,
    /// Where `/` is, which fits also what does not begin with it.
    root: Option<usize>,
}

#[derive(Debug)]
struct Entry<T> {
    prefix: String,
    /// The longest other prefix that this one begins with.
    within: Option<usize>,
    route: T,
}

impl<T> Paths<T> {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { entries: Vec::new(), root: None }
    }

    /// One more, in any order. Of two that are equal the first one counts.
    pub(super) fn push(&mut self, prefix: String, route: T) {
        self.entries.push(Entry { prefix, within: None, route });
    }

    /// To be called behind the last one, and before any is looked for.
    pub(super) fn ready(&mut self) {
        // A stable sort keeps the first of two equal prefixes in front.
        self.entries.sort_by(|a, b| a.prefix.cmp(&b.prefix));
        self.entries.dedup_by(|later, first| later.prefix == first.prefix);
        let mut open: Vec<usize> = Vec::new();
        for at in 0..self.entries.len() {
            let is_within = |outer: usize| self.entries[at].prefix.starts_with(&self.entries[outer].prefix);
            while open.last().is_some_and(|outer| !is_within(*outer)) {
                open.pop();
            }
            self.entries[at].within = open.last().copied();
            open.push(at);
        }
        self.root = self.entries.iter().position(|entry| entry.prefix == "/");
    }

    /// The route of the longest prefix that fits.
    pub(super) fn find(&self, path: &str) -> Option<&T> {
        let mut next = self.entries.partition_point(|entry| entry.prefix.as_str() <= path).checked_sub(1);
        while let Some(at) = next {
            let entry = &self.entries[at];
            if fits(&entry.prefix, path) {
                return Some(&entry.route);
            }
            next = entry.within;
        }
        self.root.map(|at| &self.entries[at].route)
    }
}

fn fits(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
}
