//! Active health checks: timers and sockets that feed the pool's health.
