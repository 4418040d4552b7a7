//! Which PostgreSQL server is spoken to: of several in the URL, the one that takes writes.
//!
//! One connection of its own asks the server every second how it is. When that fails, or the server has become a standby,
//! every server is asked at once and the one that takes writes gets a new pool; until there is one, queries fail at once
//! instead of queueing up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Bounds, StoreError};

/// Between two questions.
const LOOK: Duration = Duration::from_secs(1);
/// For the answer to one.
const ANSWER: Duration = Duration::from_secs(2);

/// The servers of a URL and a pool of connections to one of them.
#[derive(Debug)]
pub(super) struct Servers {
    all: Vec<PgConnectOptions>,
    /// A standby will not do.
    wants_writes: bool,
    bounds: Bounds,
    pool: ArcSwap<PgPool>,
    /// Index in `all`.
    at: AtomicUsize,
    is_lost: AtomicBool,
}

impl Servers {
    /// Finds the server and connects.
    pub(super) async fn open(url: &str, bounds: Bounds) -> Result<Self, StoreError> {
        let (all, wants_writes) = parse(url, bounds)?;
        let (at, first) = find(&all, wants_writes, bounds.timeout).await?;
        let pool = pool(first, bounds);
        let (pool, at) = (ArcSwap::from_pointee(pool), AtomicUsize::new(at));
        Ok(Self { all, wants_writes, bounds, pool, at, is_lost: AtomicBool::new(false) })
    }

    /// Connections to the server that answers.
    pub(super) fn pool(&self) -> Result<Arc<PgPool>, StoreError> {
        if self.is_lost.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable(sqlx::Error::PoolClosed));
        }
        Ok(self.pool.load_full())
    }

    /// One connection to the same server whose statements may take as long as they take.
    pub(super) fn unhurried(&self) -> PgPool {
        let here = self.all[self.at.load(Ordering::Relaxed)].clone();
        let here = here.options([("statement_timeout", "0"), ("lock_timeout", "0")]);
        pool(&here, Bounds { connections: 1, ..self.bounds })
    }

    pub(super) async fn close(&self) {
        self.pool.load().close().await;
    }

    /// Looks after the connection until told to stop.
    pub(super) async fn watch(&self, mut stop: watch::Receiver<bool>) {
        let mut own: Option<PgConnection> = None;
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            own = self.look(own).await;
        }
    }

    async fn look(&self, own: Option<PgConnection>) -> Option<PgConnection> {
        let here = &self.all[self.at.load(Ordering::Relaxed)];
        let answers = async {
            let mut own = match own {
                Some(own) => own,
                None => here.connect().await?,
            };
            let takes_writes = takes_writes(&mut own).await?;
            Ok::<_, sqlx::Error>((own, takes_writes || !self.wants_writes))
        };
        let was_lost = self.is_lost.load(Ordering::Relaxed);
        match timeout(ANSWER, answers).await {
            Ok(Ok((own, true))) if !was_lost => return Some(own),
            Ok(Ok((_, true))) => {}
            Ok(Ok((_, false))) => tracing::warn!(server = %name(here), "the database server takes no writes any more"),
            Ok(Err(error)) if !was_lost => {
                tracing::warn!(server = %name(here), %error, "the database server does not answer");
            }
            Err(_) if !was_lost => tracing::warn!(server = %name(here), "the database server does not answer in time"),
            Ok(Err(_)) | Err(_) => {}
        }
        match find(&self.all, self.wants_writes, ANSWER).await {
            Ok((at, found)) => {
                tracing::info!(server = %name(found), "the database is found");
                let old = self.pool.swap(Arc::new(pool(found, self.bounds)));
                self.at.store(at, Ordering::Relaxed);
                self.is_lost.store(false, Ordering::Relaxed);
                // Who waits for an answer of the old server does not get one from the new.
                tokio::spawn(async move { timeout(ANSWER, old.close()).await });
            }
            Err(error) => {
                if !was_lost {
                    tracing::error!(%error, "the database is lost; looking for it every second");
                }
                self.is_lost.store(true, Ordering::Relaxed);
            }
        }
        None
    }
}

fn pool(server: &PgConnectOptions, bounds: Bounds) -> PgPool {
    PgPoolOptions::new()
        .max_connections(bounds.connections)
        .acquire_timeout(bounds.timeout)
        .idle_timeout(Duration::from_secs(300))
        .connect_lazy_with(server.clone())
}

/// The first server that will do; all are asked at once.
async fn find(
    all: &[PgConnectOptions],
    wants_writes: bool,
    limit: Duration,
) -> Result<(usize, &PgConnectOptions), StoreError> {
    let mut asked = JoinSet::new();
    for (at, server) in all.iter().cloned().enumerate() {
        asked.spawn(async move {
            let answer = timeout(limit, async {
                let mut connection = server.connect().await?;
                let takes_writes = takes_writes(&mut connection).await?;
                let _ = connection.close().await;
                Ok(takes_writes)
            });
            (at, answer.await.unwrap_or(Err(sqlx::Error::PoolTimedOut)))
        });
    }
    let mut why = None;
    while let Some(Ok((at, answer))) = asked.join_next().await {
        match answer {
            Ok(takes_writes) if takes_writes || !wants_writes => return Ok((at, &all[at])),
            Ok(_) => {}
            Err(error) => {
                let error = untrusted(&all[at], &error).unwrap_or_else(|| error.into());
                // What a server says is worth more than that another one says nothing.
                let is_silence = matches!(error, StoreError::Unavailable(_));
                why = why.filter(|_| is_silence).or(Some(error));
            }
        }
    }
    Err(why.unwrap_or(StoreError::NoPrimary))
}

/// What is wrong with how a server proves who it is, and what helps; `None`: something else is wrong.
fn untrusted(server: &PgConnectOptions, error: &sqlx::Error) -> Option<StoreError> {
    use rustls::{CertificateError as C, Error as Tls};
    let host = server.get_host();
    let (why, remedy) = match error {
        sqlx::Error::Tls(why) if why.to_string().contains("does not support TLS") => (
            "it does not encrypt".to_owned(),
            "switch `ssl` on there, or say `sslmode=disable` in `database.url` where nobody else is on the network",
        ),
        sqlx::Error::Tls(why) => (why.to_string(), "see to the `ssl…` values of `database.url`"),
        sqlx::Error::Io(io) => match io.get_ref().and_then(|inner| inner.downcast_ref::<Tls>()) {
            // An authority of the same name as ours makes a bad signature.
            Some(Tls::InvalidCertificate(C::UnknownIssuer | C::BadSignature)) => (
                "nobody whom this machine trusts has signed its certificate".to_owned(),
                "name the certificate of the authority that has, by `sslrootcert=FILE` in `database.url`",
            ),
            Some(Tls::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. })) => (
                format!("its certificate is not for `{host}`"),
                "call the server in `database.url` as its certificate does, or have one made for this name",
            ),
            Some(tls) => (tls.to_string(), "see to its certificate and to the `ssl…` values of `database.url`"),
            // Sockets that are not there are named by the URL itself.
            None if io.kind() == std::io::ErrorKind::NotFound && server.get_socket().is_none() => (
                "a file that says whom to trust is not there".to_owned(),
                "correct `sslrootcert`, `sslcert` or `sslkey` in `database.url`: absolute paths",
            ),
            None => return None,
        },
        _ => return None,
    };
    Some(StoreError::Untrusted { server: name(server), why, remedy })
}

async fn takes_writes(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let read_only: String = sqlx::query_scalar("SHOW transaction_read_only").fetch_one(connection).await?;
    Ok(read_only == "off")
}

fn name(server: &PgConnectOptions) -> String {
    match server.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => format!("{}:{}", server.get_host(), server.get_port()),
    }
}

/// One set of options per host of a libpq URL (`postgres://u@a:5432,b:5432/d?target_session_attrs=read-write`), and whether
/// the server must take writes.
fn parse(url: &str, bounds: Bounds) -> Result<(Vec<PgConnectOptions>, bool), StoreError> {
    let wrong = |what: &str| StoreError::Broken(sqlx::Error::Configuration(what.into()));
    let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("the URL of the database has no scheme"))?;
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = before.split_once('/').unwrap_or((before, ""));
    let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
    let at = if authority.contains('@') { "@" } else { "" };
    let mut session = None;
    let query: Vec<&str> = query
        .split('&')
        .filter(|pair| {
            let value = pair.strip_prefix("target_session_attrs=");
            session = session.or(value);
            value.is_none() && !pair.is_empty()
        })
        .collect();
    let says_sslmode = query.iter().any(|pair| pair.starts_with("sslmode=") || pair.starts_with("ssl-mode="));
    let names_authority =
        query.iter().any(|pair| ["sslrootcert=", "ssl-root-cert=", "ssl-ca="].iter().any(|key| pair.starts_with(key)));
    let hosts: Vec<&str> = hosts.split(',').collect();
    let wants_writes = match session {
        None => hosts.len() > 1,
        Some("any") => false,
        Some("read-write" | "primary") => true,
        Some(_) => return Err(wrong("`target_session_attrs` may be `any`, `read-write` or `primary`")),
    };
    let mut all = Vec::new();
    for host in hosts {
        let one = format!("{scheme}://{user}{at}{host}/{path}?{}", query.join("&"));
        let mut options: PgConnectOptions = one.parse().map_err(|e: sqlx::Error| wrong(&e.to_string()))?;
        // A password over a network goes to the server whose certificate we have verified, unless the operator says otherwise.
        if !says_sslmode {
            let is_local = options.get_socket().is_some() || is_this_machine(options.get_host());
            options = options.ssl_mode(if is_local { PgSslMode::Prefer } else { PgSslMode::VerifyFull });
        }
        // As libpq has it: who names an authority wants it asked.
        if names_authority && matches!(options.get_ssl_mode(), PgSslMode::Require) {
            options = options.ssl_mode(PgSslMode::VerifyCa);
        }
        let milliseconds = bounds.timeout.as_millis().to_string();
        let options = options.application_name("bowline").options([
            ("statement_timeout", milliseconds.as_str()),
            ("lock_timeout", milliseconds.as_str()),
            ("idle_in_transaction_session_timeout", milliseconds.as_str()),
        ]);
        all.push(options.disable_statement_logging());
    }
    Ok((all, wants_writes))
}

fn is_this_machine(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.starts_with('/')
        || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { connections: 1, timeout: Duration::from_secs(5) };

    #[test]
    fn every_host_of_a_url_is_a_server_and_several_mean_the_one_that_writes() {
        let told = |url: &str| {
            let (all, writes) = parse(url, BOUNDS).unwrap();
            (all.iter().map(name).collect::<Vec<_>>(), writes)
        };
        assert_eq!(told("postgres://u:p%40ss@db.example.org/x"), (vec!["db.example.org:5432".to_owned()], false));
        let both = vec!["a:5432".to_owned(), "[::1]:5433".to_owned()];
        assert_eq!(told("postgres://u:p@a,[::1]:5433/x?application_name=y"), (both.clone(), true));
        assert_eq!(told("postgresql://u:p@a,[::1]:5433/x?target_session_attrs=any"), (both, false));
        assert_eq!(told("postgres://a/x?target_session_attrs=read-write"), (vec!["a:5432".to_owned()], true));
        assert!(parse("postgres://a/x?target_session_attrs=standby", BOUNDS).is_err());
        assert!(parse("postgres://a:port/x", BOUNDS).is_err());
    }

    #[test]
    fn a_server_on_the_network_must_prove_who_it_is_unless_told_otherwise() {
        let mode = |url: &str| parse(url, BOUNDS).unwrap().0[0].get_ssl_mode().to_owned();
        assert!(matches!(mode("postgres://u@db/x"), PgSslMode::VerifyFull));
        assert!(matches!(mode("postgres://u@db/x?sslmode=disable"), PgSslMode::Disable));
        assert!(matches!(mode("postgres://u@db/x?sslmode=require"), PgSslMode::Require));
        assert!(matches!(mode("postgres://u@db/x?sslmode=require&sslrootcert=/ca.pem"), PgSslMode::VerifyCa));
        for local in ["postgres://u@localhost/x", "postgres://u@[::1]/x", "postgres:///x?host=/run/postgresql"] {
            assert!(matches!(mode(local), PgSslMode::Prefer), "{local}");
        }
    }
}
