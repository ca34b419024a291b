//! A keep-alive HTTP/1.1 client in the smallest form that a publisher needs: whole requests out, answers counted and
//! their status read. Answers must carry `Content-Length`; chunked ones are refused with a message.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use memchr::memmem;

use crate::plan::bearer;

/// One answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer<'a> {
    /// The status code.
    pub(crate) status: u16,
    /// The body.
    pub(crate) body: &'a [u8],
    /// Bytes of head and body together.
    pub(crate) length: usize,
}

/// Reads the answer at the head of `bytes`; nothing while it is not whole.
pub(crate) fn answer(bytes: &[u8]) -> Result<Option<Answer<'_>>> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = &bytes[..end];
    let status = head
        .get(9..12)
        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    let status =
        status.with_context(|| format!("not an HTTP answer: {}", String::from_utf8_lossy(head)))?;
    let Some(body) = content_length(head) else {
        bail!(
            "an answer without Content-Length: {}",
            String::from_utf8_lossy(head)
        );
    };
    let length = end + 4 + body;
    Ok(bytes.get(end + 4..length).map(|body| Answer {
        status,
        body,
        length,
    }))
}

fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let line = head.split(|byte| *byte == b'\n').find(|line| {
        line.get(..NAME.len())
            .is_some_and(|name| name.eq_ignore_ascii_case(NAME))
    })?;
    std::str::from_utf8(&line[NAME.len()..])
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// The head of a POST with a JSON body of that length.
pub(crate) fn post_head(
    target: SocketAddrV4,
    path: &str,
    key: Option<&str>,
    body: usize,
) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {target}\r\n{}Content-Type: application/json\r\nContent-Length: {body}\r\n\r\n",
        bearer(key)
    )
}

/// A request without body.
pub(crate) fn get(target: SocketAddrV4, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {target}\r\n\r\n").into_bytes()
}

/// A connection and the answers that are still to come on it.
pub(crate) struct HttpConnection {
    socket: TcpStream,
    received: Vec<u8>,
    unsent: Vec<u8>,
    blocking: bool,
    /// Requests sent and not answered yet.
    pub(crate) unanswered: usize,
}

/// Longest wait for one answer, after which the run is given up rather than hung.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

impl HttpConnection {
    /// Connects; `blocking` says whether [`HttpConnection::receive`] waits for an answer.
    pub(crate) fn open(target: SocketAddrV4, blocking: bool) -> Result<Self> {
        let socket =
            TcpStream::connect(target).with_context(|| format!("connecting to {target}"))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        socket.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        socket.set_nonblocking(!blocking)?;
        Ok(HttpConnection {
            socket,
            received: Vec::new(),
            unsent: Vec::new(),
            blocking,
            unanswered: 0,
        })
    }

    /// Sends `requests` whole requests that stand in `bytes`.
    pub(crate) fn send(&mut self, bytes: &[u8], requests: usize) -> Result<()> {
        self.unanswered += requests;
        if self.blocking {
            return self.socket.write_all(bytes).context("sending a request");
        }
        self.unsent.extend_from_slice(bytes);
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(0) => bail!("the server closed a publisher's connection"),
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("sending a request"),
            }
        }
        Ok(())
    }

    /// Reads once and hands each whole answer to `each`; returns how many there were.
    pub(crate) fn receive(&mut self, mut each: impl FnMut(&Answer<'_>)) -> Result<usize> {
        self.flush()?;
        let mut chunk = [0; 16 * 1024];
        match self.socket.read(&mut chunk) {
            Ok(0) => bail!("the server closed a publisher's connection"),
            Ok(read) => self.received.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock && !self.blocking => return Ok(0),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(0),
            Err(error) => return Err(error).context("waiting for an answer"),
        }
        let (mut used, mut count) = (0, 0);
        while let Some(answer) = answer(&self.received[used..])? {
            each(&answer);
            used += answer.length;
            count += 1;
        }
        self.received.drain(..used);
        self.unanswered = self.unanswered.saturating_sub(count);
        Ok(count)
    }

    /// One request and its answer, on a blocking connection.
    pub(crate) fn call(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>)> {
        self.send(request, 1)?;
        let mut result = None;
        while result.is_none() {
            self.receive(|answer| result = Some((answer.status, answer.body.to_vec())))?;
        }
        result.context("the loop ends with an answer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_pipelined_answers_one_by_one() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 503 X\r\ncontent-length:0\r\n\r\n";
        let first = answer(bytes).expect("valid").expect("whole");
        assert_eq!((first.status, first.body), (200, &b"{}"[..]));
        let second = answer(&bytes[first.length..])
            .expect("valid")
            .expect("whole");
        assert_eq!(
            (second.status, second.length),
            (503, bytes.len() - first.length)
        );
    }

    #[test]
    fn waits_for_the_whole_answer_and_refuses_what_it_cannot_measure() {
        assert_eq!(
            answer(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}").expect("valid"),
            None
        );
        assert_eq!(answer(b"HTTP/1.1 200 OK\r\n").expect("valid"), None);
        assert!(answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }
}
