//! Which backend knows this client: read a hint, write a cookie. Pure.
