//! Every default, once, with its reason.
