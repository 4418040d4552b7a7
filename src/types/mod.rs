//! The nouns everybody uses. Each is parsed once, at the edge, and then trusted.
//!
//! Nothing here knows of any other part of the program.

mod address;
mod key;
mod secret;

pub use address::{BackendAddress, ListenAddress, ParseAddressError};
pub use key::{BackendKey, ParseKeyError};
pub use secret::Secret;
