//! The one task that changes things: start, reload, renewal of certificates, stop.
//!
//! Everything that asks for a change (signals, files, the operator) speaks to it over one bounded channel, so that no
//! two changes meet. It parses, checks all, builds, binds, and only then swaps; any problem leaves what runs as it is.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::admin::{ReloadDone, ReloadRefused};
use super::listener::{BindError, Listeners, tls};
use super::metrics::{Metrics, ProbeOutcome};
use super::operator::Operator;
use super::pool::Outcome;
use super::state::{Problem, State, check, load_certificates};
use super::{Proxy, admin, probe};
use crate::config;
use crate::config::proxy::Settings;
use crate::config::report;
use crate::runtime::clock;
use crate::runtime::ready::{Notifier, Ports};
use crate::runtime::signal::{Signal, Signals};
use crate::runtime::watch::Watcher;
use crate::runtime::workers::Workers;
use crate::telemetry::Causes;
use crate::telemetry::access::AccessLog;
use crate::telemetry::carbon;
use crate::telemetry::sink::Sink;

/// How a proxy is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration file; read again at each reload.
    pub file: PathBuf,
    /// Where to write the bound addresses once ready.
    pub ports_file: Option<PathBuf>,
    /// Where the process's own log goes.
    pub log: Sink,
}

/// Why a proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The files the settings name cannot be used.
    #[error("the configuration cannot be used")]
    Unusable(Vec<Problem>),
    /// Addresses that cannot be bound.
    #[error("cannot listen")]
    Bind(Vec<BindError>),
    /// The operator's endpoint cannot be bound.
    #[error("the admin endpoint cannot listen on {0}")]
    Admin(String),
    /// Anything else of the system.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What the conductor can be asked for.
pub enum Ask {
    /// Reload and tell how it went.
    Reload(oneshot::Sender<Result<ReloadDone, ReloadRefused>>),
}

/// Opens the operator's doors, and sends metrics where they are wanted; all that ends when the set is shut down.
async fn serve_operator(
    settings: &config::proxy::Startup,
    operator: &Arc<Operator>,
) -> Result<(Option<SocketAddr>, JoinSet<()>), StartError> {
    // The operator can ask until the very end: these doors do not close when the others do.
    let (never, stop) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let mut address = None;
    if let Some(at) = settings.admin.address {
        let listener = TcpListener::bind(at).await.map_err(|e| StartError::Admin(format!("{at}: {e}")))?;
        address = listener.local_addr().ok();
        tasks.spawn(admin::serve_tcp(listener, Arc::clone(operator), stop.clone()));
    }
    if let Some(path) = &settings.admin.socket {
        let socket = admin::AdminSocket::bind(path).map_err(|e| StartError::Admin(e.to_string()))?;
        tasks.spawn(admin::serve_unix(socket, Arc::clone(operator), stop.clone()));
    }
    if let Some(graphite) = settings.graphite.clone() {
        let operator = Arc::clone(operator);
        let write = move |empty| {
            let operator = Arc::clone(&operator);
            let text = tokio::task::spawn_blocking(move || operator.expose(empty));
            async { text.await.unwrap_or_default() }
        };
        tasks.spawn(carbon::follow(graphite, None, write, stop));
    }
    tasks.spawn(async move { never.closed().await });
    Ok((address, tasks))
}

/// The probes of all pools of one state; they end when this is dropped.
struct Probes(Vec<(Arc<super::state::Backing>, watch::Sender<bool>)>);

/// Runs a proxy until it is told to leave and has left.
///
/// # Errors
/// [`StartError`] when it did not start; later problems are logged and change nothing.
pub async fn run(settings: Settings, options: Options) -> Result<(), StartError> {
    let system = |what| move |source| StartError::System { what, source };
    let mut signals = Signals::new().map_err(system("signals cannot be received"))?;
    let tickets = tls::Tickets::new().map_err(|e| system("TLS tickets cannot be made")(std::io::Error::other(e)))?;
    let Settings { startup, live } = settings;
    let access = AccessLog::start(&live.access_log).map_err(system("the access log cannot be opened"))?;
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"), option_env!("BOWLINE_COMMIT").unwrap_or("unknown"));
    let prepared =
        State::prepare(live, None, &tickets, &metrics, clock::unix_seconds()).map_err(StartError::Unusable)?;
    for warning in &prepared.warnings {
        tracing::warn!(file = %warning.file.display(), remedy = %warning.remedy, "{}", warning.message);
    }
    let mut listeners = Listeners::default();
    let bound = listeners.prepare(prepared.listeners.clone()).map_err(StartError::Bind)?;
    let state = prepared.build(None, &metrics, clock::now());
    let (stop, stopping) = watch::channel(false);
    let (asks, mut asked) = mpsc::channel(16);
    let threads = startup.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let workers = Workers::start(threads).map_err(system("worker threads cannot be started"))?;
    let proxy = Proxy::new(&startup, workers, state, access, metrics, stopping);
    let operator = Arc::new(Operator::new(Arc::clone(&proxy), &options, asks));
    let (admin_address, mut admin_tasks) = serve_operator(&startup, &operator).await?;

    listeners.commit(&proxy, bound);
    operator.listening(listeners.listening());
    let mut probes = Probes(Vec::new());
    probes.follow(&proxy);
    let mut conductor = Conductor {
        proxy: Arc::clone(&proxy),
        operator: Arc::clone(&operator),
        tickets,
        listeners,
        probes,
        options,
        startup,
        notifier: Notifier::from_environment(),
    };
    let (watcher, mut changes) = Watcher::new(conductor.watched()).await;
    // What changed between the first reading and the watching.
    conductor.files_changed();
    operator.became_ready();
    conductor.announce(admin_address).map_err(system("the ports file cannot be written"))?;

    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Reload => {
                    conductor.proxy.access_log().reopen();
                    let _ = conductor.reload("SIGHUP");
                    watcher.replace(conductor.watched()).await;
                }
                Signal::Terminate | Signal::Interrupt => break,
            },
            Some(Ask::Reload(reply)) = asked.recv() => {
                let _ = reply.send(conductor.reload("the operator"));
                watcher.replace(conductor.watched()).await;
            }
            Some(()) = changes.recv() => {
                conductor.files_changed();
                watcher.replace(conductor.watched()).await;
            }
        }
    }
    // Who asks for a reload from here on is told at once that there will be none.
    drop(asked);
    conductor.leave(&stop, &mut signals).await;
    // Awaited, so that the socket's file is gone before the process is.
    admin_tasks.shutdown().await;
    Ok(())
}

struct Conductor {
    proxy: Arc<Proxy>,
    operator: Arc<Operator>,
    tickets: tls::Tickets,
    listeners: Listeners,
    probes: Probes,
    options: Options,
    startup: config::proxy::Startup,
    notifier: Notifier,
}

impl Conductor {
    /// Tells others that everything listens.
    fn announce(&self, admin: Option<SocketAddr>) -> std::io::Result<()> {
        let listening = self.listeners.listening();
        for listener in &listening {
            tracing::info!(listener = %listener.name, address = %listener.address, "listening");
        }
        for backing in &self.proxy.state().pools {
            tracing::info!(pool = %backing.pool.name(), backends = backing.pool.backends().len(), "pool");
        }
        if let Some(file) = &self.options.ports_file {
            let ports = Ports {
                listeners: listening.iter().map(|l| (l.name.to_string(), l.address.to_string())).collect(),
                admin: admin.map(|a| a.to_string()),
                admin_socket: self.startup.admin.socket.clone(),
                pid: std::process::id(),
            };
            ports.write(file)?;
        }
        self.notifier.ready();
        Ok(())
    }

    /// The files whose change matters.
    fn watched(&self) -> Vec<PathBuf> {
        let state = self.proxy.state();
        let mut files = vec![self.options.file.clone()];
        files.extend(state.certificates.keys().cloned());
        for pool in &state.settings.pools {
            files.extend(pool.affinity.iter().map(|c| c.key_file.clone()));
            files.extend(pool.tls.iter().filter_map(|t| t.ca_file.clone()));
        }
        files
    }

    /// Something on disk changed: certificates are renewed even when the configuration beside them is broken just now.
    fn files_changed(&mut self) {
        let renewed = self.renew_certificates();
        let before = self.proxy.state();
        let is_same =
            config::load(&self.options.file).is_ok_and(|s| s.live == before.settings && s.startup == self.startup);
        let sources_are_same = is_same && before.pools.iter().all(|b| b.sources_are_current());
        match renewed {
            _ if !sources_are_same => drop(self.reload("a changed file")),
            Err(report) => self.operator.reloaded(false, Some(report.to_string())),
            // What was refused before was mended by putting back what is in use.
            Ok(()) if !self.operator.last_reload_was_taken() => self.operator.reloaded(true, None),
            Ok(()) => {}
        }
    }

    /// Takes up every pair that can be used; one that cannot be leaves its predecessor and no other.
    ///
    /// # Errors
    /// What could not be used.
    fn renew_certificates(&self) -> Result<(), report::Report> {
        let (unix_s, mut refused) = (clock::unix_seconds(), report::Report::default());
        for (folder, shared) in &self.proxy.state().certificates {
            let mut problems = Vec::new();
            let loaded = load_certificates(folder, Some(&shared.load()), unix_s, &mut problems);
            for problem in &problems {
                tracing::warn!(file = %problem.file.display(), remedy = %problem.remedy, "{}", problem.message);
            }
            if let Some(mut loaded) = loaded {
                if problems.iter().any(|p| !p.is_warning) {
                    loaded = loaded.with_refused_from(&shared.load());
                }
                if loaded.not_after() != shared.load().not_after() {
                    tracing::info!(folder = %folder.display(), "certificates renewed");
                }
                shared.store(Arc::new(loaded));
            }
            refused.problems.extend(problems.iter().filter(|p| !p.is_warning).map(reported));
        }
        if refused.problems.is_empty() { Ok(()) } else { Err(refused) }
    }

    /// Reload: all or nothing.
    fn reload(&mut self, why: &str) -> Result<ReloadDone, ReloadRefused> {
        self.notifier.reloading();
        let outcome = self.try_reload().inspect_err(|report| {
            tracing::error!(why, problems = report.problems.len(), "reload refused; the old configuration stays");
            for problem in report.lines() {
                tracing::error!("{problem}");
            }
            self.operator.reloaded(false, Some(report.to_string()));
        });
        if let Ok(done) = &outcome {
            tracing::info!(
                why,
                generation = done.generation,
                changes = done.changes.join("; "),
                "configuration reloaded"
            );
            let waiting = (!done.waiting_for_restart.is_empty())
                .then(|| format!("waiting for a restart: {}", done.waiting_for_restart.join(", ")));
            let lines: Vec<_> = done.changes.iter().cloned().chain(waiting).collect();
            self.operator.reloaded(true, (!lines.is_empty()).then(|| lines.join("\n")));
        }
        self.operator.listening(self.listeners.listening());
        self.notifier.ready();
        outcome.map_err(|report| ReloadRefused::new(&report, &report.problems))
    }

    fn try_reload(&mut self) -> Result<ReloadDone, report::Report> {
        let (settings, advice) = config::load_with(&self.options.file, |_| Vec::new())
            // What is wrong with the files it names is told together with what is wrong with it.
            .map_err(|report| config::load_with(&self.options.file, problems_of_files).err().unwrap_or(report))?;
        let (before, metrics) = (self.proxy.state(), self.proxy.metrics());
        let prepared = State::prepare(settings.live, Some(&before), &self.tickets, metrics, clock::unix_seconds())
            .map_err(|problems| report::Report {
                problems: problems.iter().filter(|p| !p.is_warning).map(reported).collect(),
            })?;
        let bound = self.listeners.prepare(prepared.listeners.clone()).map_err(|errors| {
            let file = self.options.file.display().to_string();
            let remedy = "free the address, or name another";
            let told = |e: &BindError| report::Problem::about(file.clone(), e.to_string(), remedy);
            report::Report { problems: errors.iter().map(told).collect() }
        })?;
        if prepared.settings().access_log != before.settings.access_log {
            self.proxy.access_log().reconfigure(&prepared.settings().access_log).map_err(|e| {
                let file = prepared.settings().access_log.file.clone().unwrap_or_default().display().to_string();
                let remedy = "name a file in a folder that exists and can be written";
                report::Problem::about(file, format!("the access log cannot be opened: {e}"), remedy)
            })?;
        }
        let warnings: Vec<_> =
            advice.lines().into_iter().chain(prepared.warnings.iter().map(|w| format!("warning: {w}"))).collect();
        let state = prepared.build(Some(&before), metrics, clock::now());
        let mut changes = describe(&before, &state);
        changes.extend(warnings);
        let waiting_for_restart = waiting(&self.startup, &settings.startup);
        let generation = state.generation;
        self.proxy.swap(state);
        self.listeners.commit(&self.proxy, bound);
        self.probes.follow(&self.proxy);
        Ok(ReloadDone { generation, changes, waiting_for_restart })
    }

    /// Leaves: stop accepting, let requests and sessions finish until the deadline or a second signal.
    async fn leave(mut self, stop: &watch::Sender<bool>, signals: &mut Signals) {
        self.notifier.stopping();
        self.operator.is_leaving();
        self.listeners.stop().await;
        self.proxy.stop();
        let _ = stop.send(true);
        let deadline = self.proxy.state().settings.shutdown_deadline;
        tracing::info!(
            connections = self.listeners.open_connections(),
            sessions = self.proxy.ledger().len(),
            deadline_seconds = deadline.as_secs(),
            "leaving: no new connections"
        );
        let finished = async {
            while self.listeners.open_connections() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = finished => tracing::info!("left: nobody is connected any more"),
            () = tokio::time::sleep(deadline) => {
                let cut = self.proxy.ledger().end_all(super::tunnel::EndCause::Shutdown);
                tracing::warn!(sessions = cut, "left at the deadline");
                // What was told to end gets a moment to do so.
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            () = ending(signals) => tracing::warn!(sessions = self.proxy.ledger().len(), "left at a second signal"),
        }
        self.proxy.access_log().flush(Duration::from_secs(2));
    }
}

impl Probes {
    /// Probes what the current state holds: pools that stayed keep their probes, others get new ones.
    fn follow(&mut self, proxy: &Arc<Proxy>) {
        let state = proxy.state();
        self.0.retain(|(backing, stop)| {
            let stays = state.pools.iter().any(|b| Arc::ptr_eq(b, backing));
            if !stays {
                let _ = stop.send(true);
            }
            stays
        });
        for backing in &state.pools {
            if self.0.iter().any(|(b, _)| Arc::ptr_eq(b, backing)) || backing.pool.settings().probe.is_none() {
                continue;
            }
            let (stop, stopped) = watch::channel(false);
            let (proxy, told) = (Arc::clone(proxy), Arc::clone(backing));
            let on_verdict = move |_: &super::pool::Pool,
                                   backend: &super::pool::Backend,
                                   answer: &probe::Answer,
                                   transition: Option<_>| {
                if let Some(at) = told.pool.backends().iter().position(|b| b.key() == backend.key()) {
                    told.backend_metrics[at].probed(probe_label(probe::outcome(answer)));
                }
                if let Some(transition) = transition {
                    let why = answer.as_ref().err().map(|failure| Causes(failure).to_string()).unwrap_or_default();
                    proxy.health_changed(&told, backend, transition, &why);
                }
            };
            tokio::spawn(probe::run(Arc::clone(&backing.pool), backing.tls.clone(), on_verdict, stopped));
            self.0.push((Arc::clone(backing), stop));
        }
    }
}

/// The next signal that ends the process.
async fn ending(signals: &mut Signals) {
    while signals.next().await == Signal::Reload {}
}

fn probe_label(outcome: Outcome) -> ProbeOutcome {
    match outcome {
        Outcome::ProbeOk | Outcome::Answered => ProbeOutcome::Ok,
        Outcome::ProbeFailed | Outcome::Broken => ProbeOutcome::Failed,
        Outcome::Refused => ProbeOutcome::Refused,
        Outcome::Leaving => ProbeOutcome::Leaving,
        Outcome::TimedOut => ProbeOutcome::TimedOut,
    }
}

/// The keys of startup settings whose new value waits for a restart.
fn waiting(is: &config::proxy::Startup, wanted: &config::proxy::Startup) -> Vec<String> {
    let changed = [
        ("threads", is.threads != wanted.threads),
        ("admin", is.admin != wanted.admin),
        ("upstream", is.upstream_keepalive_connections != wanted.upstream_keepalive_connections),
        ("log", is.log != wanted.log),
    ];
    changed.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key.to_owned()).collect()
}

/// What is wrong with the files a configuration names, found by reading them.
pub fn problems_of_files(settings: &Settings) -> Vec<report::Problem> {
    check(&settings.live, clock::unix_seconds()).iter().map(reported).collect()
}

/// A problem with a file the configuration names, as one of the configuration.
pub fn reported(problem: &Problem) -> report::Problem {
    let severity = if problem.is_warning { report::Severity::Warning } else { report::Severity::Error };
    let (message, remedy) = (problem.message.clone(), problem.remedy.clone());
    report::Problem { severity, ..report::Problem::about(problem.file.display().to_string(), message, remedy) }
}

/// What differs, a line per listener, pool and table.
fn describe(before: &State, after: &State) -> Vec<String> {
    let mut changes = Vec::new();
    let (was, is) = (&before.settings, &after.settings);
    for pool in &is.pools {
        match was.pools.iter().find(|p| p.name == pool.name) {
            None => changes.push(format!("pool `{}` added with {} backends", pool.name, pool.backends.len())),
            Some(old) if old != pool => {
                let added = pool
                    .backends
                    .iter()
                    .filter(|b| !old.backends.iter().any(|o| o.key == b.key))
                    .map(|b| format!("+{}", b.key));
                let gone = old
                    .backends
                    .iter()
                    .filter(|o| !pool.backends.iter().any(|b| b.key == o.key))
                    .map(|o| format!("-{}", o.key));
                let keys: Vec<_> = added.chain(gone).collect();
                changes.push(format!("pool `{}` changed {}", pool.name, keys.join(" ")).trim_end().to_owned());
            }
            Some(_) => {
                let backing = |state: &State| state.backing(&pool.name).cloned();
                if let (Some(old), Some(new)) = (backing(before), backing(after))
                    && !Arc::ptr_eq(&old, &new)
                {
                    changes.push(format!("pool `{}`: its key ring or CA file changed", pool.name));
                }
            }
        }
    }
    changes.extend(
        was.pools
            .iter()
            .filter(|o| !is.pools.iter().any(|p| p.name == o.name))
            .map(|o| format!("pool `{}` removed", o.name)),
    );
    for listener in &is.listeners {
        match was.listeners.iter().find(|l| l.name == listener.name) {
            None => changes.push(format!("listener `{}` added on {}", listener.name, listener.address)),
            Some(old) if old != listener => changes.push(format!("listener `{}` changed", listener.name)),
            Some(_) => {}
        }
    }
    changes.extend(
        was.listeners
            .iter()
            .filter(|o| !is.listeners.iter().any(|l| l.name == o.name))
            .map(|o| format!("listener `{}` removed", o.name)),
    );
    if was.routes != is.routes {
        changes.push(format!("routes changed, now {}", is.routes.len()));
    }
    changes
}
