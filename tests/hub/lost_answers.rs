//! Answers of Redis that are lost on their way: what was asked is done, and nobody hears so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::redis_server::RedisServer;
use crate::support::eventually;
use crate::support::session::{PASSWORD, session_hub};

/// A way to a Redis server on which answers get lost from the first word on that is waited for.
struct LossyWay {
    port: u16,
    is_armed: Arc<AtomicBool>,
    is_lost: Arc<AtomicBool>,
}

impl LossyWay {
    /// Answers to whatever has these bytes, and those behind, are lost once it is armed.
    async fn to(server: u16, bytes: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let way = Self {
            port: listener.local_addr().expect("an address").port(),
            is_armed: Arc::default(),
            is_lost: Arc::default(),
        };
        let (is_armed, is_lost) = (way.is_armed.clone(), way.is_lost.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", server)).await;
                let (from_server, to_server) = server.expect("the server").into_split();
                let (from_client, to_client) = client.into_split();
                let (armed, lost) = (is_armed.clone(), is_lost.clone());
                tokio::spawn(pass(from_client, to_server, move |passing| {
                    let has_it = passing.windows(bytes.len()).any(|part| part == bytes);
                    if has_it && armed.load(SeqCst) {
                        lost.store(true, SeqCst);
                    }
                    true
                }));
                let lost = is_lost.clone();
                tokio::spawn(pass(from_server, to_client, move |_| !lost.load(SeqCst)));
            }
        });
        way
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

/// Passes on what this lets pass.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    lets: impl Fn(&[u8]) -> bool + Send,
) {
    let mut buffer = vec![0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if lets(&buffer[..count]) && to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// The one who logs in hears that nobody knows. What has begun is nobody's then, and must not stay.
#[tokio::test]
async fn a_login_that_nobody_was_told_of_does_not_stay() {
    let redis = RedisServer::start_with(&["--save", ""]);
    // What begins a session has its conversation.
    let way = LossyWay::to(redis.port(), br#""chat_id":"default""#).await;
    let url = way.url();
    let hub = session_hub(&[("REDIS_URL", &url), ("READY_REDIS_GRACE_MS", "0")]).await;
    eventually("a user", async || {
        (hub.register("ann").await.status == 200).then_some(())
    })
    .await;
    let sessions = || redis.ask(&["ZCARD", "idx:sessions:ann"]);
    way.is_armed.store(true, SeqCst);
    let login = hub.try_login("ann", PASSWORD);
    let begun = eventually("a session", async || (sessions() == "1").then_some(()));
    let (answer, ()) = tokio::join!(login, begun);
    answer.expect_refusal(503, "Service Unavailable");
    let detail = answer.json()["detail"].to_string();
    assert!(detail.contains("the outcome is unknown"), "{detail}");
    way.is_armed.store(false, SeqCst);
    way.is_lost.store(false, SeqCst);
    eventually("the session has ended", async || {
        tokio::time::sleep(Duration::from_millis(50)).await;
        (sessions() == "0").then_some(())
    })
    .await;
    eventually("another login", async || {
        (hub.try_login("ann", PASSWORD).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(sessions(), "1");
}
