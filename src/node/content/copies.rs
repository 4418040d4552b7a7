//! Folders on this node's own disk that are made once from what is kept elsewhere: unpacked bundles, environments, packages.
//!
//! Whoever wants one that is being made waits for it; one that was not made whole is not there. When one was last wanted is
//! when its folder was changed; those that nobody has wanted for long go, and the oldest where there is too much.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::runtime::{clock, dice};

/// Whoever wants a copy writes that down so often.
const NOTE: Duration = Duration::from_secs(1800);
/// What somebody has wanted a moment ago stays.
const RECENT: Duration = Duration::from_secs(3 * 3600);
/// What is still not whole after this was left by who was killed: nothing may take longer than a day.
const LEFT: Duration = Duration::from_secs(2 * 24 * 3600);
/// Bytes that a file, empty or not, takes beside what is in it.
const FILE_BYTES: u64 = 512;

/// How often the removal of what was not made whole is tried, and the pause between.
const REMOVALS: u32 = 100;
const REMOVE_AGAIN: Duration = Duration::from_millis(100);

/// A folder of such folders, by name.
#[derive(Clone, Debug)]
pub struct Copies {
    at: PathBuf,
    turns: Turns,
    held: Arc<Mutex<HashMap<PathBuf, usize>>>,
    /// Bytes of those that were measured: they change only when others go that share files with them.
    sizes: Arc<Mutex<HashMap<PathBuf, u64>>>,
}

impl Copies {
    /// Below this folder, which is made when it is needed.
    pub fn new(at: PathBuf) -> Self {
        Self { at, turns: Arc::default(), held: Arc::default(), sizes: Arc::default() }
    }

    /// The folder of this name, or the turn to make it. Whoever asks meanwhile waits.
    ///
    /// # Errors
    /// Why there is none, in a sentence.
    pub async fn get(&self, name: &str) -> Result<Copy, String> {
        let path = self.at.join(name);
        if is_there(&path) {
            return Ok(Copy::There(path));
        }
        let turn =
            Arc::clone(self.turns.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default());
        let turn = turn.lock_owned().await;
        if path.is_dir() {
            return Ok(Copy::There(path));
        }
        let new = self.at.join(format!("{name}.{:032x}.new", dice::unique()));
        fs::create_dir_all(&new).map_err(|e| format!("the folder {} cannot be made: {e}", new.display()))?;
        Ok(Copy::Missing(Making { new, path, name: name.to_owned(), turns: Arc::clone(&self.turns), _turn: turn }))
    }

    /// Keeps a copy for as long as somebody runs on it.
    pub fn hold(&self, path: &Path) -> Held {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner).entry(path.to_owned()).or_default() += 1;
        Held { path: path.to_owned(), held: Arc::clone(&self.held) }
    }

    /// All that are whole. Blocks.
    pub fn all(&self) -> Vec<PathBuf> {
        let found = fs::read_dir(&self.at).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
        found.filter(|path| path.extension().is_none() && path.is_dir()).collect()
    }

    /// Removes one, unless somebody runs on it; whether it went. Blocks.
    pub fn remove(&self, path: &Path) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.contains_key(path) {
            return false;
        }
        let old = out_of_sight(path);
        drop(held);
        old.is_some_and(|old| fs::remove_dir_all(old).is_ok())
    }

    /// Those that are whole and may go: when they were last wanted, and their bytes. What was left half made goes at once.
    fn removable(&self, now: SystemTime) -> Vec<(SystemTime, PathBuf, u64)> {
        let mut found = Vec::new();
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for entry in fs::read_dir(&self.at).into_iter().flatten().filter_map(Result::ok) {
            let path = entry.path();
            let Ok(wanted) = entry.metadata().and_then(|of| of.modified()) else { continue };
            let age = now.duration_since(wanted).unwrap_or_default();
            if path.extension().is_some() {
                if age > LEFT {
                    let _ = fs::remove_dir_all(&path);
                }
                continue;
            }
            let bytes = self.size(&path);
            if held.contains_key(&path) {
                // For other nodes of this machine, which do not know who holds it.
                note(&path);
                found.push((now, path, bytes));
            } else {
                found.push((wanted, path, bytes));
            }
        }
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner).retain(|path, _| path.exists());
        found
    }

    fn size(&self, path: &Path) -> u64 {
        if let Some(known) = self.sizes.lock().unwrap_or_else(PoisonError::into_inner).get(path) {
            return *known;
        }
        let size = size(path);
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), size);
        size
    }
}

/// Removes those nobody has wanted for so long, then the oldest until no more than these bytes are left; never one that is
/// held, or was wanted a moment ago. How many went. Blocks.
pub fn tidy(all: &[&Copies], unused: Duration, bytes_max: u64, now: SystemTime) -> usize {
    let mut found: Vec<_> = all.iter().flat_map(|copies| copies.removable(now)).collect();
    found.sort_unstable();
    let mut bytes: u64 = found.iter().map(|(.., bytes)| bytes).sum();
    let mut gone = 0;
    for (wanted, path, size) in found {
        let age = now.duration_since(wanted).unwrap_or_default();
        if age <= RECENT || age <= unused && bytes <= bytes_max {
            continue;
        }
        // Measuring took a while: somebody may have wanted it meanwhile. Nobody holds it before they found it there.
        let holders: Vec<_> =
            all.iter().map(|copies| copies.held.lock().unwrap_or_else(PoisonError::into_inner)).collect();
        let is_wanted = fs::metadata(&path).and_then(|of| of.modified()).is_ok_and(|at| at != wanted);
        if is_wanted || holders.iter().any(|held| held.contains_key(&path)) {
            continue;
        }
        let old = out_of_sight(&path);
        drop(holders);
        if let Some(old) = old {
            let _ = fs::remove_dir_all(&old);
            bytes = bytes.saturating_sub(size);
            gone += 1;
        }
    }
    if gone > 0 {
        // What is left may have more of the files to itself now.
        all.iter().for_each(|copies| copies.sizes.lock().unwrap_or_else(PoisonError::into_inner).clear());
    }
    gone
}

/// Renames what is to go, so that nobody finds half of it; where it is then.
fn out_of_sight(path: &Path) -> Option<PathBuf> {
    let old = path.with_extension(format!("{:032x}.old", dice::unique()));
    fs::rename(path, &old).ok().map(|()| old)
}

/// Bytes of a folder and all that is in it; of a file that is in several folders its share. Blocks.
pub fn size(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let is_folder = fs::symlink_metadata(folder).is_ok_and(|of| of.is_dir());
    let mut folders: Vec<PathBuf> = is_folder.then(|| folder.to_owned()).into_iter().collect();
    let mut bytes = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
            let Ok(metadata) = entry.metadata() else { continue };
            let shares = if metadata.is_file() { metadata.nlink().max(1) } else { 1 };
            bytes += (FILE_BYTES + metadata.blocks() * 512) / shares;
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    bytes
}

/// Whether there is one; then it is noted that it was wanted.
fn is_there(path: &Path) -> bool {
    let Ok(metadata) = fs::metadata(path) else { return false };
    let is_old = metadata.modified().ok().and_then(|at| at.elapsed().ok()).is_some_and(|age| age > NOTE);
    if is_old && metadata.is_dir() {
        note(path);
    }
    metadata.is_dir()
}

fn note(path: &Path) {
    let _ = fs::File::open(path).and_then(|folder| folder.set_modified(now()));
}

/// As files have it.
pub fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + clock::unix()
}

/// A copy that stays until this is dropped.
#[derive(Debug)]
pub struct Held {
    path: PathBuf,
    held: Arc<Mutex<HashMap<PathBuf, usize>>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.path) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.path);
            }
        }
    }
}

/// What is asked for.
#[derive(Debug)]
pub enum Copy {
    /// It is in this folder.
    There(PathBuf),
    /// Whoever has this makes it.
    Missing(Making),
}

/// A folder that is being made. Dropped before it is done, it goes.
#[derive(Debug)]
pub struct Making {
    new: PathBuf,
    path: PathBuf,
    name: String,
    turns: Turns,
    _turn: tokio::sync::OwnedMutexGuard<()>,
}

impl Making {
    /// Empty at first.
    pub fn folder(&self) -> &Path {
        &self.new
    }

    /// It is whole; where it is now.
    ///
    /// # Errors
    /// What the system says.
    pub fn done(self) -> Result<PathBuf, String> {
        // Another node of this machine may have been faster.
        if let Err(error) = fs::rename(&self.new, &self.path)
            && !self.path.is_dir()
        {
            return Err(format!("the folder {} cannot be made: {error}", self.path.display()));
        }
        Ok(self.path.clone())
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if self.new.exists() {
            let new = self.new.clone();
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn_blocking(move || remove(&new))),
                Err(_) => remove(&new),
            }
        }
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

/// Removes a folder that a program which was just killed may still fill for a moment. Blocks.
fn remove(folder: &Path) {
    for _ in 0..REMOVALS {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => std::thread::sleep(REMOVE_AGAIN),
            _ => return,
        }
    }
    tracing::warn!(folder = %folder.display(), "what was begun there cannot be removed; it goes in two days");
}

/// Whose turn it is, by name.
type Turns = Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>;

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    async fn made(copies: &Copies, name: &str, bytes: usize, age: Duration) -> PathBuf {
        let Ok(Copy::Missing(making)) = copies.get(name).await else { panic!("{name} is there") };
        fs::create_dir(making.folder().join("below")).unwrap();
        fs::write(making.folder().join("below/file"), vec![1; bytes]).unwrap();
        let path = making.done().unwrap();
        aged(&path, age);
        path
    }

    fn aged(path: &Path, age: Duration) {
        fs::File::open(path).unwrap().set_modified(now() - age).unwrap();
    }

    fn names(copies: &Copies) -> Vec<String> {
        let mut all: Vec<String> =
            fs::read_dir(&copies.at).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    }

    #[tokio::test]
    async fn what_nobody_wants_goes_and_what_somebody_runs_on_stays() {
        let folder = tempfile::tempdir().unwrap();
        let copies = Copies::new(folder.path().join("a"));
        for (name, days) in [("fresh", 0), ("old", 31), ("held", 40), ("asked", 50)] {
            made(&copies, name, 10, days * DAY).await;
        }
        let held = copies.hold(&copies.at.join("held"));
        assert!(matches!(copies.get("asked").await, Ok(Copy::There(_))), "which notes that it was wanted");
        for (name, days) in [("x.0.new", 3), ("y.0.new", 1), ("z.0.old", 3)] {
            fs::create_dir(copies.at.join(name)).unwrap();
            aged(&copies.at.join(name), days * DAY);
        }
        let later = now() + Duration::from_secs(5);
        assert_eq!(tidy(&[&copies], 30 * DAY, u64::MAX, later), 1);
        assert_eq!(names(&copies), ["asked", "fresh", "held", "y.0.new"]);
        drop(held);
        assert_eq!(tidy(&[&copies], 30 * DAY, u64::MAX, later), 0, "it was in use a moment ago");
        aged(&copies.at.join("held"), 40 * DAY);
        assert_eq!(tidy(&[&copies], 30 * DAY, u64::MAX, later), 1);
    }

    #[tokio::test]
    async fn what_is_not_made_whole_goes_though_somebody_still_writes_there() {
        let folder = tempfile::tempdir().unwrap();
        let copies = Copies::new(folder.path().join("a"));
        let Ok(Copy::Missing(making)) = copies.get("x").await else { panic!() };
        let at = making.folder().to_owned();
        let (ends, ended) = std::sync::mpsc::channel::<()>();
        let writer = std::thread::spawn(move || {
            let mut made = 0;
            while ended.try_recv().is_err() {
                made += u64::from(fs::create_dir_all(at.join(format!("{made}/below"))).is_ok());
            }
        });
        drop(making);
        tokio::time::sleep(Duration::from_millis(50)).await;
        ends.send(()).unwrap();
        writer.join().unwrap();
        let gone = async {
            while !names(&copies).is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(15), gone).await.expect("it goes");
    }

    #[tokio::test]
    async fn where_there_is_too_much_the_oldest_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| Copies::new(folder.path().join(name)));
        made(&a, "1", 300_000, 3 * DAY).await;
        made(&b, "2", 300_000, 2 * DAY).await;
        made(&a, "3", 300_000, DAY).await;
        made(&b, "4", 300_000, Duration::ZERO).await;
        assert_eq!(tidy(&[&a, &b], 30 * DAY, 2_000_000, now()), 0);
        assert_eq!(tidy(&[&a, &b], 30 * DAY, 700_000, now()), 2);
        assert_eq!((names(&a), names(&b)), (vec!["3".to_owned()], vec!["4".to_owned()]));
        assert_eq!(tidy(&[&a, &b], 30 * DAY, 1, now()), 1, "what was wanted a moment ago stays");
    }
}
