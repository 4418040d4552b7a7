//! Who a program runs as where this one is root.

use nix::unistd::{Gid, User, getgrouplist};
use std::ffi::CString;

/// Groups of one account.
const GROUPS_MAX: usize = 64;

/// An account, by its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user.
    pub uid: u32,
    /// Its own group.
    pub gid: u32,
    /// The others it is in.
    pub groups: Vec<u32>,
}

impl Account {
    /// One that no list of accounts has: user and group of one number.
    pub const fn numbered(uid: u32) -> Self {
        Self { uid, gid: uid, groups: Vec::new() }
    }

    /// One of this machine's accounts, wherever its list of them is. Blocks.
    ///
    /// # Errors
    /// There is none, or it may do too much, in a sentence.
    pub fn named(name: &str) -> Result<Self, String> {
        let user = User::from_name(name).map_err(|e| format!("the account `{name}` cannot be looked up: {e}"))?;
        let user = user.ok_or_else(|| format!("there is no account `{name}` on this node"))?;
        let plain = CString::new(name).map_err(|_| format!("`{name}` is no name of an account"))?;
        let told = |e| format!("the groups of the account `{name}` cannot be looked up: {e}");
        let all = getgrouplist(&plain, user.gid).map_err(told)?;
        let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
        let groups: Vec<u32> = all.into_iter().map(Gid::as_raw).filter(|group| *group != gid).collect();
        if uid == 0 || gid == 0 || groups.contains(&0) {
            return Err(format!("content does not run as the account `{name}`: it is root, or in root's group"));
        }
        if groups.len() > GROUPS_MAX {
            return Err(format!("the account `{name}` is in more than {GROUPS_MAX} groups"));
        }
        Ok(Self { uid, gid, groups })
    }

    /// What `setpriv` is told.
    pub(super) fn options(&self) -> [String; 3] {
        let groups = match self.groups.is_empty() {
            true => "--clear-groups".to_owned(),
            false => format!("--groups={}", self.groups.iter().map(u32::to_string).collect::<Vec<_>>().join(",")),
        };
        [format!("--reuid={}", self.uid), format!("--regid={}", self.gid), groups]
    }

    /// As nodes tell it to each other: `UID:GID+GROUP,GROUP`.
    pub fn told(&self) -> String {
        let mut groups: Vec<u32> = self.groups.clone();
        groups.sort_unstable();
        let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
        format!("{}:{}+{}", self.uid, self.gid, groups.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_looked_up_and_root_is_none() {
        let nobody = Account::named("nobody").unwrap();
        assert_eq!(nobody.uid, 65_534);
        assert_eq!(nobody.options()[0], "--reuid=65534");
        assert!(Account::named("root").unwrap_err().contains("root"));
        assert!(Account::named("nobody-of-that-name").unwrap_err().contains("there is no account"));
        let account = Account { uid: 5, gid: 6, groups: vec![9, 7] };
        assert_eq!(
            (account.told().as_str(), account.options()[2].as_str()),
            ("5:6+7,9", "--groups=9,7"),
            "the same account is told the same by all nodes"
        );
    }
}
