//! The nouns everybody uses. Each is parsed once, at the edge, and then trusted.
//!
//! Nothing here knows of any other part of the program.

mod address;
mod digest;
mod duration;
mod ip_text;
mod key;
mod secret;
mod size;

pub use address::{BackendAddress, ListenAddress, ParseAddressError};
pub use digest::{ParseDigestError, Sha256};
pub use duration::{HumanDuration, ParseDurationError};
pub use ip_text::IpText;
pub use key::{BackendKey, ParseKeyError};
pub use secret::Secret;
pub use size::{ByteSize, ParseSizeError};

/// How a node says to proxies that it leaves: a field of a 503, also of the answer to a probe. It takes nobody new, and goes on with
/// the sessions it has; the value says how many.
pub const LEAVING: &str = "bowline-leaving";
