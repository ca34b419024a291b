//! Users in PostgreSQL, with the rest in SQLite or in Redis, and what is special to it: two stores that must agree, a server
//! that goes away.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use fanfare::session::{
    DatabaseError, IN_MEMORY, PostgresStore, SessionLimits, SqliteStore, Store, StoreError,
};

use crate::over_redis::OverRedis;
use crate::postgres_server::PostgresServer;
use crate::suite::{self, HASH, Harness as _, LIMITS, name, seconds, session, start, user};

/// PostgreSQL with the rest in memory; one server for all cases.
pub(crate) struct OverPostgres;

/// PostgreSQL with the rest in Redis.
pub(crate) struct OverPostgresAndRedis(pub(crate) OverRedis);

impl suite::Harness for OverPostgres {
    const KIND: &str = "postgres";

    async fn store(&self, limits: SessionLimits) -> Arc<dyn Store> {
        opened(&fresh(), in_memory(limits).await).await
    }
}

impl suite::Harness for OverPostgresAndRedis {
    const KIND: &str = "postgres";

    async fn store(&self, limits: SessionLimits) -> Arc<dyn Store> {
        opened(&fresh(), self.0.store(limits).await).await
    }
}

fn server() -> &'static PostgresServer {
    static SERVER: OnceLock<PostgresServer> = OnceLock::new();
    SERVER.get_or_init(PostgresServer::start)
}

/// The URL of a world of its own.
fn fresh() -> String {
    static CASES: AtomicU32 = AtomicU32::new(0);
    let case = CASES.fetch_add(1, Ordering::Relaxed);
    server().schema(&format!("case_{case}"))
}

async fn in_memory(limits: SessionLimits) -> Arc<dyn Store> {
    Arc::new(
        SqliteStore::open(IN_MEMORY, limits)
            .await
            .expect("it opens"),
    )
}

async fn open(url: &str, rest: Arc<dyn Store>) -> Result<PostgresStore, DatabaseError> {
    PostgresStore::open(&url.parse().expect("a URL"), rest).await
}

async fn opened(url: &str, rest: Arc<dyn Store>) -> Arc<dyn Store> {
    Arc::new(open(url, rest).await.expect("it opens"))
}

#[tokio::test(flavor = "multi_thread")]
async fn several_nodes_start_at_once_and_one_of_them_gets_a_name() {
    let url = fresh();
    let rests = [
        in_memory(LIMITS).await,
        in_memory(LIMITS).await,
        in_memory(LIMITS).await,
    ];
    let [one, two, three] = rests.map(|rest| opened(&url, rest));
    let (one, two, three) = tokio::join!(one, two, three);
    let ann = name("ann");
    let asks = [one, two, three].map(|node| {
        let ann = user(&ann, start());
        tokio::spawn(async move { node.add_user(ann).await })
    });
    let mut added = 0;
    for ask in asks {
        added += u32::from(ask.await.expect("an answer") == Ok(true));
    }
    assert_eq!(added, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn users_stand_in_a_table_of_their_own_and_are_there_for_the_next_node() {
    let url = fresh();
    let schema = url.rsplit_once("%3D").expect("a schema").1;
    let (ann, now) = (name("Ann"), start());
    let store = opened(&url, in_memory(LIMITS).await).await;
    assert_eq!(store.add_user(user(&ann, now)).await, Ok(true));
    let next = opened(&url, in_memory(LIMITS).await).await;
    assert_eq!(next.user(&ann).await, Ok(Some(user(&ann, now))));
    let kept = server().ask(&format!("SELECT key, name, role FROM {schema}.hub_users"));
    assert_eq!(kept, format!("{}|{}|user", ann.key(), ann.text()));
    let tables = server().ask(&format!(
        "SELECT count(*) FROM information_schema.tables WHERE table_schema = '{schema}'"
    ));
    assert_eq!(tables, "2", "the users, and which migrations were made");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_come_in_the_order_of_their_keys_whatever_the_database_thinks() {
    let store = opened(&fresh(), in_memory(LIMITS).await).await;
    let names = ["b_1", "b-2", "B3", "Ä", "z", "a b"];
    let names = names.map(|name| fanfare::session::UserName::new(name).expect("a name"));
    for name in &names {
        assert_eq!(store.add_user(user(name, start())).await, Ok(true));
    }
    let mut keys: Vec<&str> = names.iter().map(|name| name.key()).collect();
    keys.sort_unstable();
    let (mut cursor, mut listed) = (String::new(), Vec::new());
    loop {
        let page = store.users(&cursor, 2).await.expect("a page");
        let Some(last) = page.last() else { break };
        cursor = last.name.key().to_owned();
        listed.extend(page.iter().map(|user| user.name.key().to_owned()));
    }
    assert_eq!(listed, keys);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_other_store_refuses_is_not_done_here_either() {
    let redis = OverRedis::new();
    let url = fresh();
    let store = opened(&url, redis.store(LIMITS).await).await;
    let (ann, now) = (name("ann"), start());
    assert_eq!(store.add_user(user(&ann, now)).await, Ok(true));
    drop(redis);
    let later = now.after(seconds(60));
    let login = store
        .begin_login(
            ann.clone(),
            HASH.into(),
            session(&ann, "default", later),
            true,
        )
        .await;
    assert!(login.is_err(), "{login:?}");
    let removed = store.remove_user(&ann).await;
    assert!(removed.is_err(), "{removed:?}");
    let kept = store
        .user(&ann)
        .await
        .expect("it answers")
        .expect("still there");
    assert_eq!(kept.last_login, now, "the login was not noted");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_keeps_a_session_of_a_user_who_goes() {
    let store = opened(&fresh(), in_memory(LIMITS).await).await;
    for _ in 0..20 {
        let (ann, now) = (name("ann"), start());
        assert_eq!(store.add_user(user(&ann, now)).await, Ok(true));
        let logins = (0..4).map(|_| {
            let (store, ann) = (store.clone(), ann.clone());
            let session = session(&ann, "default", now);
            tokio::spawn(async move { store.begin_login(ann, HASH.into(), session, false).await })
        });
        let logins: Vec<_> = logins.collect();
        let removed = store.remove_user(&ann).await.expect("it answers");
        for login in logins {
            login.await.expect("an answer").expect("it answers");
        }
        assert!(removed.is_some());
        assert_eq!(store.sessions(ann.text(), now).await, Ok(Vec::new()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_told_and_comes_back() {
    let mut server = PostgresServer::start();
    let rest = in_memory(LIMITS).await;
    let store = opened(&server.url("public"), rest.clone()).await;
    let (ann, bob, now) = (name("ann"), name("bob"), start());
    assert_eq!(store.add_user(user(&ann, now)).await, Ok(true));
    server.kill();
    assert_eq!(store.user(&ann).await, Err(StoreError::Unavailable));
    assert_eq!(
        store.add_user(user(&bob, now)).await,
        Err(StoreError::Unavailable)
    );
    let login = store
        .begin_login(
            ann.clone(),
            HASH.into(),
            session(&ann, "default", now),
            true,
        )
        .await;
    assert_eq!(login, Err(StoreError::Unavailable));
    assert_eq!(
        rest.sessions(ann.text(), now).await,
        Ok(Vec::new()),
        "no session began"
    );
    // What needs no users goes on.
    assert_eq!(
        store.add_session(session(&ann, "default", now)).await,
        Ok(Vec::new())
    );
    server.start_again();
    assert_eq!(store.user(&bob).await, Ok(None), "nothing was half done");
    assert!(store.user(&ann).await.expect("it answers").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_used_says_where_and_not_with_which_password() {
    let nowhere = "postgres://ann:secret@127.0.0.1:1/users";
    let error = open(nowhere, in_memory(LIMITS).await)
        .await
        .expect_err("refused");
    let text = error.to_string();
    assert!(
        text.contains("127.0.0.1:1/users") && !text.contains("secret"),
        "{text}"
    );
    let url = fresh();
    let schema = url.rsplit_once("%3D").expect("a schema").1.to_owned();
    drop(opened(&url, in_memory(LIMITS).await).await);
    server().ask(&format!(
        "INSERT INTO {schema}.hub_users_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'later', TRUE, '', 0)"
    ));
    let error = open(&url, in_memory(LIMITS).await)
        .await
        .expect_err("refused");
    assert!(matches!(error, DatabaseError::Migration { .. }), "{error}");
}
