//! What is behind a pool, in one word. A preset fills defaults; every key that is written wins.

use super::default;
use super::proxy::Policy;

/// An application we know how to stand in front of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Our own nodes. They bring the reconnect shim themselves.
    Bowline,
    /// Shiny processes (R or Python) without a server in front.
    Shiny,
    /// Posit Connect.
    Connect,
    /// Posit Package Manager: stateless.
    PackageManager,
    /// Posit Workbench; its health check must be switched on (`server-health-check-enabled=1`).
    Workbench,
    /// The open source Shiny Server.
    ShinyServer,
}

/// The defaults of a pool that depend on what is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind {
    /// How a backend is chosen.
    pub policy: Policy,
    /// Bind clients by cookie.
    pub affinity: bool,
    /// Probe this path by HTTP; `None`: by TCP.
    pub probe_path: Option<&'static str>,
    /// Put the reconnect shim into HTML pages.
    pub reconnect_shim: bool,
    /// Set `X-RSC-Request`.
    pub rsc_request: bool,
    /// An answer may say that its backend leaves: no application behind it can.
    pub heeds_leaving: bool,
}

/// The defaults of a pool with this preset, or without one.
pub const fn behind(preset: Option<Preset>) -> Behind {
    // An unknown service: see that somebody listens, and leave everything as it is.
    let plain = Behind {
        policy: default::POLICY,
        affinity: false,
        probe_path: None,
        reconnect_shim: false,
        rsc_request: false,
        heeds_leaving: false,
    };
    let sticky = Behind { affinity: true, ..plain };
    match preset {
        None => plain,
        // `/__ping__` and `X-RSC-Request` as Connect documents them for proxies; our nodes follow.
        Some(preset @ (Preset::Bowline | Preset::Connect)) => {
            let heeds_leaving = matches!(preset, Preset::Bowline);
            Behind { probe_path: Some("/__ping__"), rsc_request: true, heeds_leaving, ..sticky }
        }
        Some(Preset::Shiny) => Behind { probe_path: Some("/"), reconnect_shim: true, ..sticky },
        // Any node answers any request, and installs are short: even out the requests.
        Some(Preset::PackageManager) => {
            Behind { probe_path: Some("/__ping__"), policy: Policy::LeastRequests, ..plain }
        }
        Some(Preset::Workbench) => Behind { probe_path: Some("/health-check"), ..sticky },
        Some(Preset::ShinyServer) => Behind { probe_path: Some("/ping"), ..sticky },
    }
}
