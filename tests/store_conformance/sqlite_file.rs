//! What is special to the store in a file: it is there after a restart, and a file that cannot be used says so.

use std::path::PathBuf;

use fanfare::session::{OpenError, SqliteStore, Store, Updated};

use sqlx::ConnectOptions as _;

use crate::suite::{LIMITS, name, session, start, update, user};

/// A directory of this test's own.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("store-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a path").to_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let directory = Directory::new("restart");
    let file = directory.file("fanfare.db");
    let (ann, now) = (name("ann"), start());
    let session = session(&ann, "default", now);
    {
        let store = SqliteStore::open(&file, LIMITS).await.expect("it opens");
        assert_eq!(store.add_user(user(&ann, now)).await, Ok(true));
        store.add_session(session.clone()).await.expect("added");
    }
    // The first one may still be closing: a process that was killed would not have closed either.
    let store = SqliteStore::open(&file, LIMITS).await.expect("it opens");
    let kept = store.user(&ann).await.expect("it answers");
    assert_eq!(kept, Some(user(&ann, now)));
    assert_eq!(store.session(session.head.id, now).await, Ok(Some(session)));
}

/// An operator's hand, or a program's that is not ours.
#[tokio::test]
async fn a_row_that_nobody_can_read_is_gone_and_makes_room() {
    let directory = Directory::new("garbage");
    let file = directory.file("fanfare.db");
    let (ann, now) = (name("ann"), start());
    let store = SqliteStore::open(&file, LIMITS).await.expect("it opens");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file);
    let mut connection = options.connect().await.expect("it opens");
    for garbage in [
        "data = CAST(x'7bff7d' AS TEXT)",
        "data = 'garbage'",
        "data = ''",
        "node = CAST(x'ff' AS TEXT)",
    ] {
        let broken = session(&ann, "default", now);
        let other = session(&ann, "other", now);
        let id = broken.head.id;
        for session in [&broken, &other] {
            store.add_session(session.clone()).await.expect("added");
        }
        let changed = sqlx::query(sqlx::AssertSqlSafe(format!(
            "UPDATE sessions SET {garbage} WHERE id = ?"
        )))
        .bind(id.bits().to_be_bytes().to_vec())
        .execute(&mut connection)
        .await;
        assert_eq!(changed.expect(garbage).rows_affected(), 1);
        assert_eq!(store.session(id, now).await, Ok(None), "{garbage}");
        let update = update(&broken, r#"{"a":1}"#, now);
        let updated = store.update_session(update).await;
        assert_eq!(updated, Ok(Updated::Missing), "{garbage}");
        let list = store.sessions(ann.text(), now).await.expect(garbage);
        assert!(
            list.iter().any(|head| head.id == other.head.id),
            "{garbage}"
        );
        if garbage.starts_with("node") {
            assert_eq!(store.owner(id, now).await, Ok(None), "{garbage}");
            assert!(list.iter().all(|head| head.id != id), "{garbage}");
        }
        let next = session(&ann, "default", now);
        let chosen = store.choose_session(next.clone(), None).await;
        assert_eq!(chosen.expect(garbage).session, next, "{garbage}");
        assert_eq!(store.end_session(id).await, Ok(false), "{garbage}");
        store.end_sessions(ann.text()).await.expect(garbage);
    }
}

/// One user whom nobody can read does not hide the others.
#[tokio::test]
async fn a_list_is_without_a_user_whom_nobody_can_read() {
    let directory = Directory::new("garbage-users");
    let file = directory.file("fanfare.db");
    let now = start();
    let store = SqliteStore::open(&file, LIMITS).await.expect("it opens");
    let (ann, bob) = (name("ann"), name("bob"));
    for name in [&ann, &bob] {
        assert_eq!(store.add_user(user(name, now)).await, Ok(true));
    }
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file);
    let mut connection = options.connect().await.expect("it opens");
    let change = sqlx::query("UPDATE users SET name = '' WHERE key = ?").bind(ann.key());
    let changed = change.execute(&mut connection).await;
    assert_eq!(changed.expect("changed").rows_affected(), 1);
    let list = store.users("", 10).await.expect("it answers");
    assert_eq!(list, [user(&bob, now)]);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_by_name() {
    let directory = Directory::new("text");
    let file = directory.file("notes.txt");
    std::fs::write(&file, "these are notes, and no database, in many words").expect("written");
    let error = SqliteStore::open(&file, LIMITS).await.expect_err("refused");
    assert!(matches!(
        error,
        OpenError::File { .. } | OpenError::Migration { .. }
    ));
    assert!(error.to_string().contains("notes.txt"), "{error}");
    let text = std::fs::read_to_string(&file).expect("it is there");
    assert!(text.starts_with("these are notes"));
}

#[tokio::test]
async fn a_file_that_cannot_be_made_is_refused_by_name() {
    let directory = Directory::new("missing");
    let file = directory.file("no-such-folder/fanfare.db");
    let error = SqliteStore::open(&file, LIMITS).await.expect_err("refused");
    assert!(error.to_string().contains("no-such-folder"), "{error}");
}

#[tokio::test]
async fn a_file_of_a_later_version_is_refused() {
    let directory = Directory::new("later");
    let file = directory.file("fanfare.db");
    drop(SqliteStore::open(&file, LIMITS).await.expect("it opens"));
    let later =
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (9999, 'later', TRUE, x'00', 0)";
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file);
    let mut connection = options.connect().await.expect("it opens");
    let added = sqlx::query(later).execute(&mut connection).await;
    assert_eq!(added.expect("added").rows_affected(), 1);
    let error = SqliteStore::open(&file, LIMITS).await.expect_err("refused");
    assert!(matches!(error, OpenError::Migration { .. }), "{error}");
}
