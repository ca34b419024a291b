//! A back end that publishes one number after the other, each until it is acknowledged, with an idempotency key.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::subscriber::{Addresses, CHANNEL};

/// An answer must be there by then: two seconds are promised, the rest is a busy machine's.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);

#[derive(Debug, Default)]
pub(crate) struct Said {
    /// Offset and number of each acknowledged publication, in their order.
    pub(crate) acknowledged: Vec<(u64, u64)>,
    /// How many answers were refusals, by their status.
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
}

pub(crate) struct Publisher {
    pub(crate) said: Arc<Mutex<Said>>,
    is_over: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Publisher {
    /// Publishes `first`, `first + 1`, … with a pause between.
    pub(crate) fn start(first: u64, pause: Duration, addresses: &Addresses) -> Self {
        let said = Arc::new(Mutex::new(Said::default()));
        let is_over = Arc::new(AtomicBool::new(false));
        let (mine, over, addresses) = (said.clone(), is_over.clone(), addresses.clone());
        let task = tokio::spawn(async move {
            let mut number = first;
            while !over.load(Ordering::Relaxed) {
                publish(number, &addresses, &mine).await;
                number += 1;
                tokio::time::sleep(pause).await;
            }
        });
        Self {
            said,
            is_over,
            task,
        }
    }

    /// Ends when the number that is under way is acknowledged.
    pub(crate) async fn finish(self) -> Said {
        self.is_over.store(true, Ordering::Relaxed);
        self.task.await.expect("it does not panic");
        std::mem::take(&mut *self.said.lock().expect("whole"))
    }
}

async fn publish(number: u64, addresses: &Addresses, said: &Mutex<Said>) {
    let key = format!("number-{number}");
    let body = json!({"channel": CHANNEL, "data": number, "idempotency_key": key}).to_string();
    for attempt in number.. {
        let address = {
            let addresses = addresses.lock().expect("whole");
            addresses[usize::try_from(attempt).unwrap_or_default() % addresses.len()]
        };
        let began = Instant::now();
        let answer =
            tokio::time::timeout(ANSWER_WITHIN, post(address, "/hub/publish", &body)).await;
        let answer = answer.unwrap_or_else(|_| panic!("no answer within {ANSWER_WITHIN:?}"));
        assert!(began.elapsed() < ANSWER_WITHIN);
        {
            let mut said = said.lock().expect("whole");
            match answer {
                Some((200, body)) => {
                    let offset = body["offset"].as_u64().expect("an offset");
                    said.acknowledged.push((offset, number));
                    return;
                }
                Some((status, body)) => {
                    assert_eq!(status, 503, "{body}");
                    said.refused += 1;
                    said.unknown += u64::from(body["outcome"] == "unknown");
                }
                // The node went away in the middle.
                None => said.unknown += 1,
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Posts, and answers status and body; `None` when there is nobody.
pub(crate) async fn post(address: SocketAddr, path: &str, body: &str) -> Option<(u16, Value)> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    exchange(address, &(head + body)).await
}

/// Gets, and answers status and body.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Option<(u16, Value)> {
    let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    exchange(address, &head).await
}

async fn exchange(address: SocketAddr, request: &str) -> Option<(u16, Value)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some((status, serde_json::from_str(body).ok()?))
}
