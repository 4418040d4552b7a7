//! `bowline sandbox-relay --to SOCKET -- COMMAND…` (hidden): runs inside a sandbox that has no network, and lets COMMAND
//! reach what listens on a unix socket by `127.0.0.1:3939`. Its exit code is COMMAND's.
#![expect(clippy::print_stderr, reason = "it says why it did not begin")]

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use tokio::net::{TcpListener, UnixStream};
use tokio::process::Command;

use super::on_host;
use crate::node::sandbox::INDEX_PORT;

/// Where to, and for whom.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The socket.
    #[arg(long, value_name = "SOCKET")]
    to: PathBuf,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

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

async fn relay(Args { to, command }: Args) -> std::io::Result<ExitCode> {
    let listener = TcpListener::bind(("127.0.0.1", INDEX_PORT)).await?;
    let Some((program, arguments)) = command.split_first() else { return Ok(ExitCode::FAILURE) };
    let mut child = Command::new(program).args(arguments).spawn()?;
    loop {
        tokio::select! {
            ended = child.wait() => {
                let code = ended?.code().and_then(|code| u8::try_from(code).ok());
                return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
            }
            accepted = listener.accept() => {
                let (mut stream, _) = accepted?;
                let to = to.clone();
                tokio::spawn(async move {
                    if let Ok(mut there) = UnixStream::connect(to).await {
                        let _ = tokio::io::copy_bidirectional(&mut stream, &mut there).await;
                    }
                });
            }
        }
    }
}
