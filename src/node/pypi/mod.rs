//! Python packages: the simple repository API (PEP 503, 691, 700, 714), files, and the legacy upload.

pub mod coding;
pub mod file;
pub mod form;
pub mod metadata;
pub mod name;
pub mod negotiate;
pub mod project_json;
pub mod provenance;
pub mod render;
pub mod simple;
pub mod upload;
pub mod wheel;

pub use self::file::file;
pub use self::project_json::{project_json, release_json};
pub use self::provenance::provenance;
pub use self::simple::{Pages, moved, project, project_of, root, root_of};
pub use self::upload::{alone, upload};
