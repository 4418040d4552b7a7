//! The promises, kept by the real binary over real sockets: a file per promise.
//!
//! Nothing here looks inside the program: it is started with a configuration, asked over the network and by its own
//! commands, and judged by what comes back. `harness` is what they share.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests fail by panicking and keep their own time")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests print what a failure needs")]
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod harness;

mod api;
mod browser;
mod bucket;
mod builder;
mod check;
mod clients;
mod cluster;
mod conf;
mod content;
mod cran;
mod demo;
mod drain;
mod each_node;
mod enclosed;
mod failing;
mod faults;
mod forwarding;
mod generations;
mod graphite;
mod health;
mod http1;
mod http2;
mod jobs;
mod killed;
mod looks;
mod manage;
mod matrix;
mod mirror;
mod modes;
mod mounts;
mod operate;
mod packages;
mod pages;
mod refused;
mod reload;
mod remote;
mod reports;
mod resume;
mod rlibrary;
mod routing;
mod rsconnect;
mod session;
mod shutdown;
mod signed;
mod sockjs;
mod states;
mod sticky;
mod storage;
mod terminal;
mod tls;
mod upgrade;
mod users;
mod visitors;
