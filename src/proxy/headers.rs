//! Headers added, rewritten and stripped on the way (RFC 9110 §7.6.1, RFC 7239). Pure.
