//! Says when files or folders changed: editors' renames and symlink swaps too, debounced.
