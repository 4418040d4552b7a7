//! Problems of a configuration and how they print.
