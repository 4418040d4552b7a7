//! The reconnect shim and its way into HTML pages.
