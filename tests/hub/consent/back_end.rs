//! A back end that is asked, and answers as a test tells it to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::events::WEBHOOK_SECRET;
use crate::support::hub::SECRET;
use crate::support::raw::read_head;
use crate::support::{Hub, eventually, hub_with};

/// One question.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) signature: String,
    pub(super) body: String,
}

impl Asked {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

type Answers = dyn Fn(&Value) -> String + Send + Sync;

/// A back end.
#[derive(Clone)]
pub(super) struct BackEnd {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    connections: Arc<AtomicUsize>,
    /// A whole answer to a question; an empty one is none at all: the connection ends.
    answers: Arc<Answers>,
    /// Each answer takes one. Usually there are plenty.
    permits: Arc<Semaphore>,
}

/// A whole answer over HTTP.
pub(super) fn http(status: u16, fields: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{fields}\r\n{body}")
}

/// 200 with JSON.
pub(super) fn says(body: &Value) -> String {
    http(200, "content-type: application/json\r\n", &body.to_string())
}

/// Yes, and no more.
pub(super) fn yes() -> String {
    says(&json!({"allow": true}))
}

impl BackEnd {
    pub(super) async fn start(answers: impl Fn(&Value) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let back_end = Self {
            port: listener.local_addr().expect("an address").port(),
            asked: Arc::default(),
            connections: Arc::default(),
            answers: Arc::new(answers),
            permits: Arc::new(Semaphore::new(1_000_000)),
        };
        let taker = back_end.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                taker.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(taker.clone().take(stream));
            }
        });
        back_end
    }

    /// Holds all answers back until they are let go one by one.
    pub(super) fn hold(&self) {
        self.permits.forget_permits(usize::MAX >> 3);
    }

    pub(super) fn let_go(&self, answers: usize) {
        self.permits.add_permits(answers);
    }

    async fn take(self, mut stream: TcpStream) {
        let mut first = [0; 1];
        // A kept connection ends between two questions.
        while let Ok(1) = stream.peek(&mut first).await {
            let head = read_head(&mut stream).await;
            let field = |name: &str| {
                let mut lines = head.lines();
                let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                value.unwrap_or_default().to_owned()
            };
            let mut body = vec![0; field("content-length").parse().unwrap_or(0)];
            stream.read_exact(&mut body).await.expect("the body");
            let asked = Asked {
                signature: field("x-fanfare-signature"),
                body: String::from_utf8(body).expect("text"),
            };
            let answer = (self.answers)(&asked.json());
            self.asked.lock().expect("a lock").push(asked);
            self.permits.acquire().await.expect("open").forget();
            let is_sent = stream.write_all(answer.as_bytes()).await.is_ok();
            if !is_sent || answer.is_empty() || answer.contains("connection: close") {
                return;
            }
        }
    }

    /// A hub that asks it about these matters: some of `connect`, `subscribe`, `publish`.
    pub(super) async fn hub(&self, matters: &[&str], variables: &[(&str, &str)]) -> Hub {
        self.hub_with("", matters, variables).await
    }

    /// The same with a configuration file.
    pub(super) async fn hub_with(
        &self,
        file: &str,
        matters: &[&str],
        variables: &[(&str, &str)],
    ) -> Hub {
        let urls: Vec<(String, String)> = matters
            .iter()
            .map(|matter| {
                let name = format!("{}_URL", matter.to_uppercase());
                (name, self.url(matter))
            })
            .collect();
        let mut all = vec![
            ("WEBHOOK_SECRET", WEBHOOK_SECRET),
            ("JWT_SECRET", SECRET),
            ("CONSENT_TIMEOUT_MS", "20000"),
        ];
        all.extend(urls.iter().map(|(name, url)| (name.as_str(), url.as_str())));
        all.extend_from_slice(variables);
        hub_with(file, &all).await
    }

    pub(super) fn url(&self, matter: &str) -> String {
        format!("http://127.0.0.1:{}/{matter}", self.port)
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("a lock").clone()
    }

    /// How often it was asked this.
    pub(super) fn count(&self, matter: &str) -> usize {
        let asked = self.asked();
        asked
            .iter()
            .filter(|one| one.json()["ask"] == matter)
            .count()
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Waits until it was asked so often.
    pub(super) async fn until(&self, count: usize) {
        eventually("the questions", async || {
            (self.asked().len() >= count).then_some(())
        })
        .await;
    }
}
