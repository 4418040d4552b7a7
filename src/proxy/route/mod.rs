//! Host and path → route. Pure.
