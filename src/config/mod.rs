//! TOML → checked settings. All or nothing: either [`proxy::Settings`], or a [`report::Report`] that names every
//! problem with file, line, column and remedy.
//!
//! Settings are dead values: no handles, no sockets, nothing that changes.

pub mod default;
pub mod proxy;
pub mod report;
