//! What proxy and node must both know about Shiny: close codes, websocket frames, the reconnect shim, how sessions are resumed.
//!
//! Pure: bytes and headers in, bytes and headers out.

pub mod close;
pub mod frames;
pub mod resume;
pub mod shim;
