//! The closed sets that label values come from.

/// An enum whose variants are label values.
macro_rules! label {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $variant_doc:literal])+ $variant:ident = $text:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[doc = $variant_doc])+ $variant,)+ }

        impl $name {
            /// Every variant, in order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// As it stands in labels and log lines.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

label! {
    /// Why a pick fell on its backend.
    PickReason {
        /// The client was bound to it.
        Sticky = "sticky",
        /// The policy chose it for a new client.
        Balanced = "balanced",
        /// The client's own backend could not be used.
        Rebound = "rebound",
    }
}

label! {
    /// Why an affinity cookie bound nobody.
    AffinityCause {
        /// Older than its lifetime.
        Expired = "expired",
        /// Altered, or sealed with a key we do not have.
        Unsealed = "unsealed",
        /// It names a backend the pool does not have.
        Unknown = "unknown",
    }
}

label! {
    /// How a health check went.
    ProbeOutcome {
        /// A good answer.
        Ok = "ok",
        /// A bad answer, or none that could be read.
        Failed = "failed",
        /// Nobody listens.
        Refused = "refused",
        /// No answer in time.
        TimedOut = "timed_out",
        /// It says that it leaves.
        Leaving = "leaving",
    }
}

label! {
    /// Whose fault an error is.
    Side {
        /// The client's.
        Downstream = "downstream",
        /// The backend's.
        Upstream = "upstream",
        /// Ours, or nobody was there to ask.
        Internal = "internal",
    }
}

label! {
    /// A request method; what is none of these is `other` (RFC 9110 §9.1, RFC 5789).
    Method {
        /// RFC 9110 §9.3.1.
        Get = "GET",
        /// RFC 9110 §9.3.2.
        Head = "HEAD",
        /// RFC 9110 §9.3.3.
        Post = "POST",
        /// RFC 9110 §9.3.4.
        Put = "PUT",
        /// RFC 9110 §9.3.5.
        Delete = "DELETE",
        /// RFC 9110 §9.3.6.
        Connect = "CONNECT",
        /// RFC 9110 §9.3.7.
        Options = "OPTIONS",
        /// RFC 9110 §9.3.8.
        Trace = "TRACE",
        /// RFC 5789.
        Patch = "PATCH",
        /// Any other.
        Other = "other",
    }
}

impl Method {
    /// The label of a request method.
    pub fn of(method: &http::Method) -> Self {
        // `as_str` of the standard methods is a constant, so this compares a few bytes.
        match method.as_str() {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            "CONNECT" => Self::Connect,
            "OPTIONS" => Self::Options,
            "TRACE" => Self::Trace,
            "PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }
}
