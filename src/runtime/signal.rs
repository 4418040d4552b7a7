//! SIGTERM, SIGINT and SIGHUP as one stream of events.
