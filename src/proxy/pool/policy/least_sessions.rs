//! Fewest live sessions and requests in flight: the default, since a Shiny session weighs on its backend for hours.

use crate::proxy::pool::backend::Backend;

pub(super) fn load(backend: &Backend) -> u64 {
    backend.sessions().saturating_add(backend.in_flight())
}
