//! The data file: what is kept there when the hub starts again, and who may use it.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::Hub;
use crate::support::hub::SECRET;
use crate::support::session::{SESSIONS, session_hub};

#[tokio::test]
async fn users_stay_when_the_hub_starts_again() {
    let file = format!(
        "{}/users-{}.db",
        env!("CARGO_TARGET_TMPDIR"),
        std::process::id()
    );
    let variables = [("DATA_FILE", file.as_str())];
    let hub = session_hub(&variables).await;
    let ann = hub.user("ann").await;
    drop(hub);
    let hub = session_hub(&variables).await;
    assert_eq!(
        hub.session_data(&ann).await,
        json!({"api_key": null, "conversation": []})
    );
    hub.register("ann")
        .await
        .expect_refusal(400, "Username already exists");
    hub.login("ann").await;
    drop(hub);
    for end in ["", "-wal", "-shm", ".lock"] {
        let _ = std::fs::remove_file(format!("{file}{end}"));
    }
}

#[tokio::test]
async fn a_second_node_does_not_start_on_the_same_data_file() {
    let folder = Folder::new("locked");
    let folder = &folder.0;
    let file = folder.join("users.db").to_str().expect("a path").to_owned();
    let roundabout = folder.join("..").join(folder.file_name().expect("a name"));
    let roundabout = roundabout.join("users.db");
    let first = session_hub(&[("DATA_FILE", &file)]).await;
    let roundabout = roundabout.to_str().expect("a path");
    let mut second = Hub::start("", &[("JWT_SECRET", SECRET), ("DATA_FILE", roundabout)]);
    assert_ne!(second.exit_code().await, Some(0));
    let log = second.log();
    assert!(log.contains("another node uses it (process "), "{log}");
    first.user("ann").await;
    // Nobody has to clean up after a node that was killed.
    drop(first);
    let third = session_hub(&[("DATA_FILE", &file)]).await;
    third.login("ann").await;
}

/// A folder of a test's own; gone with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A hub that works in this folder, as whoever tries one there starts it.
fn start_in(folder: &Path, variables: &[(&str, &str)]) -> Hub {
    let all = [&SESSIONS[..], variables].concat();
    Hub::start_in(folder, "", &all)
}

/// Two hubs that are tried in one folder, of which nobody said where to keep users.
#[tokio::test]
async fn a_second_node_that_was_told_of_no_data_file_keeps_users_in_memory() {
    let folder = Folder::new("tried-twice");
    let development = [("NODE_ENV", "development")];
    let first = start_in(&folder.0, &development);
    first.until_ready().await;
    assert!(folder.0.join("fanfare.db").exists());
    first.user("ann").await;
    let second = start_in(&folder.0, &development);
    second.until_ready().await;
    let log = second.log();
    assert!(
        log.contains("users and sessions are kept in memory")
            && log.contains("another node uses it"),
        "{log}"
    );
    assert!(!first.log().contains("kept in memory"));
    // It has users of its own, and nothing of them reaches the other one's file.
    second.user("ann").await;
    second.user("bob").await;
    drop(second);
    assert_eq!(first.register("bob").await.status, 200);
}

/// Who chose the file, or runs production, is not given another place without asking.
#[tokio::test]
async fn a_second_node_that_was_told_of_its_data_file_or_is_production_does_not_start() {
    let folder = Folder::new("tried-in-earnest");
    let first = start_in(&folder.0, &[("NODE_ENV", "development")]);
    first.until_ready().await;
    for variables in [
        [("NODE_ENV", "development"), ("DATA_FILE", "fanfare.db")],
        [
            ("NODE_ENV", "production"),
            ("HUB_API_KEY", "a key for back ends of this test alone"),
        ],
    ] {
        let mut second = start_in(&folder.0, &variables);
        assert_ne!(second.exit_code().await, Some(0), "{variables:?}");
        let log = second.log();
        assert!(
            log.contains("another node uses it (process "),
            "{variables:?}: {log}"
        );
    }
}
