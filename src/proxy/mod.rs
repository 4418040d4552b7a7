//! The load balancer: from listener to peer.
//!
//! `listener` accepts, `connection` reads heads and gives each exchange to a mover (`http`: Pingora; `tunnel`: upgrades).
//! No mover decides anything: `request` does, out of the pure nouns `route`, `affinity`, `pool`, `headers` and one
//! [`state`] snapshot.

pub mod admin;
pub mod affinity;
pub mod certificates;
pub mod headers;
pub mod ledger;
pub mod metrics;
pub mod pool;
pub mod probe;
pub mod route;
pub mod stream;
pub mod tunnel;
