//! The Prometheus recorder and its rendering.
