//! How a store's connections are doing, in plain numbers.

/// A pool of connections at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "who watches tells all of them")]
pub struct PoolGauges {
    /// What it is for: `readers`, `writer`, or `all`.
    pub name: &'static str,
    /// Connections that stand.
    pub connections: u32,
    /// Those of them that nobody uses.
    pub idle: u32,
    /// The most there may be.
    pub max: u32,
}

impl PoolGauges {
    pub(crate) fn of<Db: sqlx::Database>(name: &'static str, pool: &sqlx::Pool<Db>) -> Self {
        let connections = pool.size();
        let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX).min(connections);
        Self { name, connections, idle, max: pool.options().get_max_connections() }
    }
}
