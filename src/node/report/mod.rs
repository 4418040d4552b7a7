//! Reports: content that is rendered once and shown often. When, how, and what came of it.

pub mod due;
pub mod mail;
pub mod plan;
pub mod render;
pub mod run;
