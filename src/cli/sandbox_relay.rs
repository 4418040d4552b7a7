//! `bowline sandbox-relay [--to SOCKET] [--from SOCKET] -- COMMAND…` (hidden): runs inside a sandbox that has no network, and
//! lets COMMAND reach what listens on a unix socket by `127.0.0.1:3939`; and lets who connects to another unix socket reach
//! what COMMAND listens on, a port of its own that it finds in PORT and in place of `{port}`. Its exit code is COMMAND's.
#![expect(clippy::print_stderr, reason = "it says why it did not begin")]

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::process::Command;

use super::on_host;
use crate::node::sandbox::INDEX_PORT;
use crate::runtime::signal::Signals;

/// Where to, where from, and for whom.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The socket of the one index.
    #[arg(long, value_name = "SOCKET")]
    to: Option<PathBuf>,
    /// The socket to make for who wants to reach the command.
    #[arg(long, value_name = "SOCKET")]
    from: Option<PathBuf>,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Between two looks whether the command listens.
const LOOK: Duration = Duration::from_millis(20);

/// Until the command has ended.
pub(super) fn run(args: Args) -> ExitCode {
    on_host::block_on(async {
        match relay(args).await {
            Ok(code) => code,
            Err(error) => {
                eprintln!("bowline sandbox-relay: {error}");
                ExitCode::from(127)
            }
        }
    })
}

async fn relay(Args { to, from, command }: Args) -> std::io::Result<ExitCode> {
    let index = match to {
        Some(to) => Some((TcpListener::bind(("127.0.0.1", INDEX_PORT)).await?, to)),
        None => None,
    };
    // Free a moment ago; nobody else is in this network but what the command starts.
    let port = match &from {
        Some(_) => TcpListener::bind(("127.0.0.1", 0)).await?.local_addr()?.port(),
        None => 0,
    };
    let Some((program, arguments)) = command.split_first() else { return Ok(ExitCode::FAILURE) };
    let arguments = arguments.iter().map(|text| match text.to_str() {
        Some(text) if from.is_some() => OsString::from(text.replace("{port}", &port.to_string())),
        _ => text.clone(),
    });
    let mut begun = Command::new(program);
    begun.args(arguments);
    if from.is_some() {
        begun.env("PORT", port.to_string());
    }
    // Who is asked to end is the command; this ends after it.
    let _asked = Signals::new()?;
    let mut child = begun.spawn()?;
    if let Some((listener, to)) = index {
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let to = to.clone();
                tokio::spawn(async move {
                    if let Ok(mut there) = UnixStream::connect(to).await {
                        let _ = tokio::io::copy_bidirectional(&mut stream, &mut there).await;
                    }
                });
            }
        });
    }
    if let Some(from) = from {
        tokio::spawn(async move {
            if let Err(error) = let_in(from, port).await {
                eprintln!("bowline sandbox-relay: {error}");
            }
        });
    }
    let code = child.wait().await?.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The socket is there once the command listens, so that who sees it may knock.
async fn let_in(from: PathBuf, port: u16) -> std::io::Result<()> {
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        tokio::time::sleep(LOOK).await;
    }
    let listener = UnixListener::bind(&from)?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            if let Ok(mut there) = TcpStream::connect(("127.0.0.1", port)).await {
                let _ = there.set_nodelay(true);
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut there).await;
            }
        });
    }
}
