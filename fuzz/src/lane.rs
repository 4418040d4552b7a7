//! The ways a case is taken through the proxy. What is asked and what is answered is one and the same in all of them.

use crate::case::{Act, Case};
use crate::shape;

/// A way through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Plain TCP on both sides, in as few writes as may be. The others are held against it.
    Whole,
    /// The same bytes in many pieces.
    Cut,
    /// The client under TLS.
    Tls,
    /// The origin on a unix socket.
    Unix,
    /// The origin under TLS.
    TlsOrigin,
    /// The same requests over HTTP/2.
    H2,
}

/// Where the origin of a lane listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shore {
    Tcp,
    Unix,
    Tls,
}

impl Shore {
    pub(crate) const ALL: [Self; 3] = [Self::Tcp, Self::Unix, Self::Tls];
}

impl Lane {
    pub(crate) const ALL: [Self; 6] = [Self::Whole, Self::Cut, Self::Tls, Self::Unix, Self::TlsOrigin, Self::H2];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Cut => "cut",
            Self::Tls => "tls",
            Self::Unix => "unix",
            Self::TlsOrigin => "tls-origin",
            Self::H2 => "h2",
        }
    }

    /// Lanes by their names, with commas between. [`Lane::Whole`] is always the first of them.
    ///
    /// # Errors
    /// Which one there is not.
    pub(crate) fn list(names: &str) -> Result<Vec<Self>, String> {
        let mut lanes = vec![Self::Whole];
        for name in names.split(',') {
            let lane = Self::ALL.into_iter().find(|lane| lane.name() == name);
            let lane = lane.ok_or_else(|| format!("there is no lane {name}"))?;
            if !lanes.contains(&lane) {
                lanes.push(lane);
            }
        }
        Ok(lanes)
    }

    /// Whether the client speaks TLS.
    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::H2)
    }

    pub(crate) fn shore(self) -> Shore {
        match self {
            Self::Unix => Shore::Unix,
            Self::TlsOrigin => Shore::Tls,
            _ => Shore::Tcp,
        }
    }

    /// Whether a case can be played in it at all.
    pub(crate) fn suits(self, case: &Case) -> bool {
        // Unix sockets know no reset.
        self != Self::Unix || !case.replies.iter().flat_map(|reply| &reply.acts).any(|act| *act == Act::Reset)
    }

    /// The case with its bytes as this lane writes them.
    pub(crate) fn shaped(self, case: &Case) -> Case {
        match self {
            Self::Cut => shape::cut(case),
            _ => shape::whole(case),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_known_by_name_and_the_first_is_always_there() {
        assert_eq!(Lane::list("cut,h2,cut"), Ok(vec![Lane::Whole, Lane::Cut, Lane::H2]));
        assert_eq!(Lane::list("whole"), Ok(vec![Lane::Whole]));
        assert!(Lane::list("whole,fast").is_err());
        let all = Lane::ALL.map(Lane::name).join(",");
        assert_eq!(Lane::list(&all), Ok(Lane::ALL.to_vec()));
    }
}
