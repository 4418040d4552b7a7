//! Fewest requests in flight: for applications that keep no session.

use crate::proxy::pool::backend::Backend;

pub(super) fn load(backend: &Backend) -> u64 {
    backend.in_flight()
}
