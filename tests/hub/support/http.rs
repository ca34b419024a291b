//! HTTP as bytes: one request, one answer, one connection.

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Hub, within};

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) text: String,
}

impl Answer {
    /// Takes apart what came until the end of the connection.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        Self {
            status: status.unwrap_or_else(|| panic!("no status in {text:?}")),
            head: head.to_owned(),
            text: body.to_owned(),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The status, which must be this one, and the code of the error.
    #[track_caller]
    pub(crate) fn expect_error(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.json()["error"], code, "{self:?}");
        assert!(self.json()["message"].is_string(), "{self:?}");
    }
}

impl Hub {
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], "").await
    }

    /// Posts JSON, as any back end may.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.request("POST", path, &[], &body.to_string()).await
    }

    /// Publishes over HTTP and answers the offset.
    pub(crate) async fn publish(&self, channel: &str, data: &Value) -> u64 {
        let body = serde_json::json!({"channel": channel, "data": data});
        let answer = self.post("/hub/publish", &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["offset"].as_u64().unwrap_or_default()
    }

    /// Publishes the numbers of a range to one channel, as fast as batches go.
    pub(crate) async fn publish_numbers(&self, channel: &str, numbers: std::ops::Range<u64>) {
        let numbers: Vec<u64> = numbers.collect();
        for batch in numbers.chunks(1000) {
            let publications: Vec<Value> = batch
                .iter()
                .map(|n| serde_json::json!({"channel": channel, "data": n}))
                .collect();
            let body = serde_json::json!({"publications": publications});
            let answer = self.post("/hub/batch", &body).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }

    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n",
            self.host()
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            let length = body.len();
            request.push_str(&format!(
                "content-type: application/json\r\ncontent-length: {length}\r\n"
            ));
        }
        request.push_str("\r\n");
        request.push_str(body);
        Answer::parse(&self.exchange(request.as_bytes()).await)
    }

    /// Sends bytes and answers everything that comes back until the end.
    pub(crate) async fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        let talk = async {
            let mut stream = TcpStream::connect(self.address()).await.expect("the hub");
            stream.write_all(bytes).await.expect("sent");
            let mut answer = Vec::new();
            // A reset after the answer changes nothing in the answer.
            let _ = stream.read_to_end(&mut answer).await;
            answer
        };
        within("an answer over HTTP", talk).await
    }
}
