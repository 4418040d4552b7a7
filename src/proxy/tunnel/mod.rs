//! Upgraded connections: our own pumps, frame-aware for websockets.
