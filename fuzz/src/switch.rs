//! Leaving HTTP (RFC 9110 §7.8): who may, and what of a run is HTTP still.

use crate::account::Run;
use crate::case::{Case, find};
use crate::faults::is_same;
use crate::fidelity::nominations;
use crate::message::{Request, Requests, all};

/// Protocols that are HTTP again, or wrap it: what is asked there no proxy would read.
const NEVER: [&[u8]; 5] = [b"h2", b"h2c", b"h3", b"http", b"tls"];

/// It asks for another protocol, in the one way that nobody can misread.
pub(crate) fn asks(sent: &Request) -> bool {
    let named: Vec<_> = all(&sent.fields, "upgrade").collect();
    let is_never = |token: &[u8]| {
        let name = token.trim_ascii().split(|b| *b == b'/').next().unwrap_or_default();
        NEVER.iter().any(|never| never.eq_ignore_ascii_case(name))
    };
    !sent.is_http10
        && sent.body.is_empty()
        && all(&sent.fields, "transfer-encoding").next().is_none()
        && nominations(&sent.fields).any(|token| token.eq_ignore_ascii_case(b"upgrade"))
        && named.len() == 1
        && !named[0].split(|b| *b == b',').any(is_never)
}

impl Run {
    /// Takes away all that was said once both sides had left HTTP, and notes that they had: if the client asked for it, and an
    /// origin agreed.
    pub(crate) fn cut_at_switch(&mut self, case: &Case) {
        let answers = &self.client.answers.all;
        let Some(at) = answers.iter().position(|answer| answer.status == 101) else { return };
        let before = answers[..at].iter().filter(|answer| answer.status >= 200).count();
        let sent = Requests::of(&case.sent()).all;
        let is_agreed = (0..case.replies.len()).any(|n| find(&case.replied(n), b" 101 ").is_some());
        let Some(leaver) = sent.get(before).filter(|request| is_agreed && asks(request)) else { return };
        self.has_switched = true;
        self.client.answers.end_behind(at);
        for heard in &mut self.origin {
            let is_leaver = |asked: &Request| all(&asked.fields, "upgrade").next().is_some() && is_same(leaver, asked);
            if let Some(at) = heard.requests.all.iter().position(is_leaver) {
                heard.requests.end_behind(at);
                heard.turns.truncate(at + 1);
                heard.given.truncate(at + 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(fields: &str) -> bool {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        asks(&Requests::of(head.as_bytes()).all[0])
    }

    #[test]
    fn only_who_asks_unmistakably_may_leave() {
        assert!(asking("Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"));
        for fields in [
            "Connection: x-upgrade\r\nUpgrade: websocket\r\n",
            "Upgrade: websocket\r\n",
            "Connection: Upgrade\r\n",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n",
            "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
            "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n",
        ] {
            assert!(!asking(fields), "{fields}");
        }
    }
}
