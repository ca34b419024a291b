//! What is special to the store in a file: it is there after a restart, and a file that cannot be used says so.

use std::path::PathBuf;

use fanfare::session::{OpenError, SqliteStore, Store};

use sqlx::ConnectOptions as _;

use crate::suite::{LIMITS, name, session, start, user};

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
