//! The conformance suite of the stores, run against each of them, and what is special to one of them. The cases are in
//! `suite.rs` and know no store; what a store needs to be tested stands here, as a [`Harness`](suite::Harness).

mod over_postgres;
mod over_redis;
#[path = "../postgres_server/mod.rs"]
mod postgres_server;
#[path = "../redis_server/mod.rs"]
mod redis_server;
mod sqlite_file;
mod suite;

use std::sync::Arc;

use fanfare::session::{IN_MEMORY, SessionLimits, SqliteStore, Store};

/// SQLite without a file.
struct Sqlite;

impl suite::Harness for Sqlite {
    const KIND: &str = "sqlite";

    async fn store(&self, limits: SessionLimits) -> Arc<dyn Store> {
        let store = SqliteStore::open(IN_MEMORY, limits).await;
        Arc::new(store.expect("it opens"))
    }
}

store_conformance!(sqlite, Sqlite);

store_conformance!(redis, over_redis::OverRedis::new());

store_conformance!(redis_cluster, over_redis::OverCluster);

store_conformance!(postgres, over_postgres::OverPostgres);

store_conformance!(
    postgres_and_redis,
    over_postgres::OverPostgresAndRedis(over_redis::OverRedis::new())
);
