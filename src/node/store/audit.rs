//! Who changed what, when, from where. Written in the transaction of the change itself.

/// A change somebody made.
#[derive(Clone, Copy, Debug)]
pub struct Deed<'a> {
    /// Name of the API key, or `host` for who works on the machine itself.
    pub who: &'a str,
    /// Client address; `None` on the machine itself.
    pub address: Option<&'a str>,
    /// A name from a closed set: `publish`, `create_repository`, …
    pub action: &'static str,
    /// What was changed.
    pub subject: &'a str,
    /// Anything else worth knowing.
    pub detail: &'a str,
}

/// Writes the deed down.
macro_rules! record {
    ($executor:expr, $deed:expr) => {
        sqlx::query(
            "INSERT INTO audit (id, at, who, action, subject, detail, address) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind($crate::node::store::new_id())
        .bind($crate::node::store::now())
        .bind($deed.who)
        .bind($deed.action)
        .bind($deed.subject)
        .bind($deed.detail)
        .bind($deed.address)
        .execute($executor)
        .await
    };
}
pub(super) use record;
