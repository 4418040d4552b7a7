//! The live sessions: each tunnel is an entry with pool, backend, client, age, last activity, bytes.
