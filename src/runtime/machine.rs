//! Which machine this is.

use std::fs;

/// The name it gives itself.
pub fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What no other machine has: systemd's machine id (machine-id(5)), or what the kernel drew when it started.
pub fn id() -> String {
    ["/etc/machine-id", "/var/lib/dbus/machine-id", "/proc/sys/kernel/random/boot_id"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .map(|text| text.trim().to_owned())
        .find(|text| !text.is_empty() && text != "uninitialized")
        .unwrap_or_else(name)
}
