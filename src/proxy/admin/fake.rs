//! A proxy for tests: it has one pool, says what it was told to say, and remembers what it was told to do.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde_json::json;

use super::*;
use crate::telemetry::Timestamp;

/// Pool `shiny` with backend `a`.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) is_starting: bool,
    pub(crate) refuses_reload: bool,
    /// Sessions and requests in flight of the backend in the answers to come; the last one stays.
    pub(crate) counts: Mutex<VecDeque<(u64, u64)>>,
    pub(crate) told: Mutex<Vec<(String, String, Change)>>,
}

impl Fake {
    pub(crate) fn counting(counts: impl IntoIterator<Item = (u64, u64)>) -> Self {
        Self { counts: Mutex::new(counts.into_iter().collect()), ..Self::default() }
    }

    pub(crate) fn told(&self) -> Vec<(String, String, Change)> {
        std::mem::take(&mut *lock(&self.told))
    }

    fn admin(&self) -> AdminState {
        match lock(&self.told).last() {
            Some((_, _, Change::Drain { .. })) => AdminState::Draining,
            Some((_, _, Change::Disable)) => AdminState::Disabled,
            Some((_, _, Change::Enable)) | None => AdminState::Enabled,
        }
    }
}

impl Control for Fake {
    fn is_ready(&self) -> bool {
        !self.is_starting
    }

    fn status(&self) -> Status {
        let (sessions, in_flight) = {
            let mut counts = lock(&self.counts);
            let now = counts.front().copied().unwrap_or((3, 1));
            if counts.len() > 1 {
                counts.pop_front();
            }
            now
        };
        Status {
            pid: 7,
            version: "0.1.0".into(),
            config: ConfigStatus {
                file: "/etc/bowline/proxy.toml".into(),
                generation: 1,
                last_reload: LastReload { at: MOMENT, ok: true, report: None },
            },
            listeners: vec![ListenerStatus { name: "https".into(), address: "0.0.0.0:443".into(), connections: 2 }],
            pools: vec![PoolStatus {
                name: "shiny".into(),
                policy: "least_sessions".into(),
                backends: vec![BackendStatus {
                    key: "a".into(),
                    address: "10.0.0.11:3838".into(),
                    health: HealthState::Up,
                    admin: self.admin(),
                    sessions,
                    in_flight,
                    requests: 42,
                    since: MOMENT,
                }],
            }],
        }
    }

    fn sessions(&self) -> Vec<SessionRow> {
        vec![SessionRow {
            id: 1,
            kind: "websocket".into(),
            pool: "shiny".into(),
            backend: "a".into(),
            client: Some("192.0.2.1:5000".into()),
            since: MOMENT,
            last_activity: MOMENT,
            bytes_in: 10,
            bytes_out: 20,
        }]
    }

    fn metrics(&self) -> String {
        "# nothing yet\n".into()
    }

    fn set_admin(&self, pool: &str, key: &str, change: Change) -> Result<(), NoSuchBackend> {
        if pool != "shiny" {
            return Err(NoSuchBackend::Pool(pool.into()));
        }
        if key != "a" {
            return Err(NoSuchBackend::Backend { pool: pool.into(), key: key.into() });
        }
        lock(&self.told).push((pool.into(), key.into(), change));
        Ok(())
    }

    async fn reload(&self) -> Result<ReloadDone, ReloadRefused> {
        if self.refuses_reload {
            let problems = json!([{"file": "proxy.toml", "line": 3}]);
            return Err(ReloadRefused::new(&"proxy.toml:3:1: no pool named `shinny`", &problems));
        }
        let changes = vec!["pool `shiny`: backend `b` added".into()];
        Ok(ReloadDone { generation: 2, changes, waiting_for_restart: vec!["admin.address".into()] })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When everything in a fake happened: 2026-05-28T20:26:40.042Z.
pub(crate) const MOMENT: Timestamp = Timestamp::from_unix(Duration::from_millis(1_780_000_000_042));
