//! Connections in.
pub mod tls;
