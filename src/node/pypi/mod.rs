//! Python packages: the simple repository API (PEP 503, 691, 700, 714), files, and the legacy upload.

pub mod file;
pub mod form;
pub mod metadata;
pub mod name;
pub mod negotiate;
pub mod simple;
pub mod upload;
pub mod wheel;

pub use self::file::file;
pub use self::simple::{Pages, moved, project, root};
pub use self::upload::{alone, upload};
