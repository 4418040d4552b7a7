//! The backends of one application and the choice among them. Pure.
