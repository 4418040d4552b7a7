//! Tells others that everything listens: `--ports-file` and systemd's notification.
