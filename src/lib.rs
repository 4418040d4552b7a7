//! Bowline: an on-premises load balancer and content node, in one binary.
//!
//! # The map
//!
//! ```text
//! main
//!  └ cli          the commands; the only place where parts are put together, and where printing happens
//!     └ proxy     the load balancer: from listener to backend
//!     └ node      the package server: from URL to row and blob                                  (axum)
//!        └ shiny  what everybody must know about Shiny: close codes, the reconnect shim
//!           └ telemetry   how logs and metrics leave the process
//!              └ config   TOML → checked settings, every problem with file:line:column
//!                 └ runtime   the outside world in small doses: clock, dice, signals, files that change, ready
//!                    └ types  the nouns: address, key, digest, duration, size, secret; parse once
//! ```
//!
//! `proxy` and `node` never know one another. Imports go strictly downward; `tests/tidy.rs` reads every `use crate::…` and holds the lists below true.
//!
//! Inside [`proxy`] the nouns [`proxy::route`], [`proxy::affinity`], [`proxy::pool`] and [`proxy::headers`] are pure:
//! no tokio, no clock, no dice, no files. Header maps, addresses, instants and random bytes go
//! in, decisions come out, so the same code decides live, explains and is simulated.
//!
//! Inside [`node`], SQL is written only in [`node::store`] and files are touched only in [`node::blob`]; neither has heard of
//! HTTP.
//!
//! Foreign crates have homes too: `h2` only in [`proxy`], `axum` and `sqlx` only in [`node`], `toml` only in [`config`], `notify` and signals
//! only in [`runtime`], exporters only in [`telemetry`], `clap`, `indicatif` and printing only in [`cli`].
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod node;
pub mod proxy;
pub mod runtime;
pub mod shiny;
pub mod telemetry;
pub mod types;
