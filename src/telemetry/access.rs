//! The access log: one JSON line per request, written by its own thread so that no request waits for it.
