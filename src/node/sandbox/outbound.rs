//! The network of what may use one: connections outward over IPv4, and names, by `slirp4netns`.
//!
//! The sandbox has a network of its own. What leaves it is taken by a process outside, of the same user, that makes ordinary
//! connections. So nobody outside connects to what is inside, and this machine's loopback is not to be reached. This
//! machine's other addresses, link-local ones (where clouds tell secrets) and those an administrator names are refused by
//! routes, which what is inside has no right to change. There is no IPv6.

use std::ffi::OsString;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::oneshot;

use super::Account;
use super::begun::Reach;
use crate::runtime::clock;

/// Addresses of the network inside: of a range no network outside has (RFC 2544). The gateway is .2, the resolver .3.
const NETWORK: &str = "198.18.0.0/24";
const RESOLVER: &str = "198.18.0.3";
/// Where programs that see to networks are, which is not on everybody's path.
const SBIN: &[&str] = &["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
/// For the network to be there.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(2);
/// Bytes of what the helper says that are told.
const SAID_MAX: usize = 2_000;

/// Waits in the new network until it is connected, then closes what is to be closed.
pub(super) const WAITING: &str = "echo up >&7; read -r go; [ \"$go\" = go ] || { printf '%s\\n' \"$go\" >&2; exit 127; }; \
     \"$1\" -batch - <&3 || { echo 'the routes of the sandbox cannot be set' >&2; exit 127; }; exec 3<&-; shift; exec \"$@\"";

/// Begins the helper, with a device that its user may open: the machine's own may be root's.
const HELPING: &str = "if [ \"$1\" = 0 ] && [ \"$(stat -c %a /dev/net/tun)\" != 666 ]; then \
       mount -t tmpfs -o mode=0755,size=64k none /mnt && mknod -m 0666 /mnt/tun c 10 200 && mount --bind /mnt/tun /dev/net/tun || exit 127; \
     fi; shift; exec \"$@\" 3>&1 >&2";

/// A network outward.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbound {
    /// What it does not lead to, beside this machine and link-local addresses.
    pub denied: Vec<IpNet>,
}

impl Outbound {
    /// Commands of `ip` that close what is to be closed.
    pub(super) fn routes(&self) -> io::Result<String> {
        // Fails closed: without the list of our own addresses nothing begins.
        let own = own(&std::fs::read_to_string("/proc/net/fib_trie")?);
        let named = self.denied.iter().filter_map(|net| match net {
            IpNet::V4(net) => Some(*net),
            IpNet::V6(_) => None,
        });
        let link = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16);
        let mut all: Vec<Ipv4Net> = own.into_iter().chain(named).chain([link]).map(|net| net.trunc()).collect();
        all.sort_unstable();
        all.dedup();
        // A route to everywhere there is already.
        let halves = |net: Ipv4Net| match net.prefix_len() {
            0 => {
                vec![Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 1), Ipv4Net::new_assert(Ipv4Addr::new(128, 0, 0, 0), 1)]
            }
            _ => vec![net],
        };
        Ok(all.into_iter().flat_map(halves).map(|net| format!("route replace prohibit {net}\n")).collect())
    }
}

/// Addresses this machine takes for its own, but loopback, of what the kernel tells in `/proc/net/fib_trie`.
fn own(told: &str) -> Vec<Ipv4Net> {
    let mut found = Vec::new();
    let mut last = None;
    for line in told.lines() {
        let line = line.trim_start();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.trim().parse::<Ipv4Addr>().ok();
        } else if let (Some(address), Some(kind)) = (last, line.strip_prefix('/'))
            && let Some((length, "host LOCAL")) = kind.split_once(' ')
            && let Some(net) = length.parse().ok().and_then(|length| Ipv4Net::new(address, length).ok())
            && !address.is_loopback()
        {
            found.push(net);
        }
    }
    found
}

/// `/etc/resolv.conf` inside: what is searched as outside, who is asked is the helper.
pub(super) fn resolver() -> String {
    let outside = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let kept =
        outside.lines().filter(|line| ["search ", "domain ", "options "].iter().any(|word| line.starts_with(word)));
    kept.chain([format!("nameserver {RESOLVER}").as_str()]).map(|line| format!("{line}\n")).collect()
}

/// A program of this machine, also where only administrators look for it.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(SBIN.iter().map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// What brings the network.
#[derive(Debug)]
pub(super) struct Helper {
    /// Sets routes.
    pub(super) ip: PathBuf,
    slirp: PathBuf,
    /// Who it becomes where we are root.
    account: Option<Account>,
}

impl Helper {
    /// # Errors
    /// Which package is missing.
    pub(super) fn find(account: Option<Account>) -> io::Result<Self> {
        let find = |name: &str, package: &str| {
            program(name).ok_or_else(|| {
                let why = format!(
                    "content that reaches the network needs `{name}`, which is not installed on this node (apt install {package})"
                );
                io::Error::new(io::ErrorKind::NotFound, why)
            })
        };
        Ok(Self { ip: find("ip", "iproute2")?, slirp: find("slirp4netns", "slirp4netns")?, account })
    }

    /// Connects the network that process is in, lets it go on, and stays until dropped. `stdin`: what it waits at; whoever
    /// wants it then is given it.
    pub(super) async fn serve(
        self,
        pid: u32,
        reach: Arc<Reach>,
        mut stdin: ChildStdin,
        give: oneshot::Sender<ChildStdin>,
    ) {
        let connected = tokio::time::timeout(PATIENCE, self.connect(pid, &reach)).await;
        let mut helper = match connected.unwrap_or_else(|_| Err("it took too long".to_owned())) {
            Ok(helper) => helper,
            Err(why) => {
                let why = why.replace(['\n', '\r'], " ");
                let _ = stdin.write_all(format!("the sandbox has no network: {why}\n").as_bytes()).await;
                return;
            }
        };
        let (said, _exit) = (helper.stderr.take(), helper.stdin.take());
        if stdin.write_all(b"go\n").await.is_err() {
            return;
        }
        // Nobody wants it where nothing goes in.
        let _ = give.send(stdin);
        let drained = async {
            if let Some(mut said) = said {
                let _ = tokio::io::copy(&mut said, &mut tokio::io::sink()).await;
            }
        };
        let (_, status) = tokio::join!(drained, helper.wait());
        if let Ok(status) = status {
            tracing::warn!(%status, "slirp4netns has ended: a sandbox has no network any more");
        }
    }

    /// # Errors
    /// Why not.
    async fn connect(&self, pid: u32, reach: &Reach) -> Result<Child, String> {
        let begun = clock::now();
        while !reach.said().map_err(|e| e.to_string())?.starts_with("up") {
            if begun.elapsed() > PATIENCE {
                return Err("the process does not come into its network".to_owned());
            }
            tokio::time::sleep(LOOK).await;
        }
        let mut helper = self.command(pid).spawn().map_err(|e| e.to_string())?;
        let mut ready = [0];
        if let Some(mut out) = helper.stdout.take()
            && out.read_exact(&mut ready).await.is_ok()
            && ready == *b"1"
        {
            return Ok(helper);
        }
        let mut said = Vec::new();
        if let Some(err) = helper.stderr.take() {
            let _ = err.take(SAID_MAX as u64).read_to_end(&mut said).await;
        }
        Err(format!("slirp4netns says: {}", String::from_utf8_lossy(&said).trim()))
    }

    /// It ends when its standard input does, which is ours: with us, however we end.
    fn command(&self, pid: u32) -> Command {
        let mut arguments: Vec<OsString> = Vec::new();
        if let Some(account) = &self.account {
            arguments.push("setpriv".into());
            arguments.extend(account.options().map(OsString::from));
            arguments.push("--no-new-privs".into());
        }
        arguments.extend(["prlimit", "--core=0", "--nofile=4096", "--"].map(OsString::from));
        arguments.push(self.slirp.clone().into());
        let own = ["--configure", "--mtu=65520", "--disable-host-loopback", "--enable-sandbox", "--enable-seccomp"];
        arguments.extend(own.map(OsString::from));
        arguments.extend(["--exit-fd=0", "--ready-fd=3", "--cidr", NETWORK].map(OsString::from));
        arguments.extend([pid.to_string(), "tap0".to_owned()].map(OsString::from));
        let mut command = Command::new(if self.account.is_some() { "unshare" } else { "sh" });
        if self.account.is_some() {
            command.args(["--mount", "--propagation", "private", "sh"]);
        }
        command.args(["-c", HELPING, "sh", if self.account.is_some() { "0" } else { "1" }]).args(arguments);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin")));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_are_found_whatever_they_are_for() {
        let told = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     +-- 192.0.2.0/24 2 0 2\n        \
                    |-- 192.0.2.0\n           /24 link UNICAST\n        |-- 192.0.2.2\n           /32 host LOCAL\n        \
                    |-- 192.0.2.255\n           /32 link BROADCAST\n     |-- 10.9.0.0\n        /16 host LOCAL\n     \
                    |-- 127.0.0.0\n        /8 host LOCAL\n";
        let found: Vec<String> = own(told).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.2/32", "10.9.0.0/16"]);
    }

    #[test]
    fn what_is_denied_is_a_route_that_leads_nowhere() {
        let outbound =
            Outbound { denied: ["10.1.2.3/24", "fe80::/10", "0.0.0.0/0"].map(|net| net.parse().unwrap()).to_vec() };
        let routes = outbound.routes().unwrap();
        for net in ["10.1.2.0/24", "169.254.0.0/16", "0.0.0.0/1", "128.0.0.0/1"] {
            assert!(routes.contains(&format!("route replace prohibit {net}\n")), "{net}: {routes}");
        }
        assert!(!routes.contains("fe80") && !routes.contains("127."), "{routes}");
    }
}
