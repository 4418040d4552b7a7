//! Folders on this node's own disk that are made once from what is kept elsewhere: unpacked bundles, environments.
//!
//! Whoever wants one that is being made waits for it; one that was not made whole is not there.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::runtime::dice;

/// A folder of such folders, by name.
#[derive(Clone, Debug)]
pub struct Copies {
    at: PathBuf,
    turns: Turns,
}

impl Copies {
    /// Below this folder, which is made when it is needed.
    pub fn new(at: PathBuf) -> Self {
        Self { at, turns: Arc::default() }
    }

    /// The folder of this name, or the turn to make it. Whoever asks meanwhile waits.
    ///
    /// # Errors
    /// Why there is none, in a sentence.
    pub async fn get(&self, name: &str) -> Result<Copy, String> {
        let path = self.at.join(name);
        if path.is_dir() {
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
        let _ = fs::remove_dir_all(&self.new);
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

/// Whose turn it is, by name.
type Turns = Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>;
