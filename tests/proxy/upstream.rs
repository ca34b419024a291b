//! An upstream of the tests' own: a raw socket that answers by path, well or badly.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::SeqCst};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A listening upstream; ends with the test's runtime.
pub(crate) struct Upstream {
    address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: AtomicUsize,
    gone: AtomicUsize,
    /// What every answer is; 0 for well.
    status: AtomicU16,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                shared.connections.fetch_add(1, SeqCst);
                // Heads and bodies are written one after the other: none is to wait for an acknowledgement.
                socket.set_nodelay(true).expect("a socket");
                tokio::spawn(serve(socket, shared.clone()));
            }
        });
        Self { address, seen }
    }

    /// One where nobody listens.
    pub(crate) async fn refusing() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let address = listener.expect("a port").local_addr();
        Self {
            address: address.expect("an address"),
            seen: Arc::default(),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(SeqCst)
    }

    pub(crate) fn requests(&self) -> usize {
        self.seen.requests.load(SeqCst)
    }

    /// Connections that were closed on us while an answer was under way.
    pub(crate) fn gone(&self) -> usize {
        self.seen.gone.load(SeqCst)
    }

    /// From now on every answer is 500, or well again.
    pub(crate) fn set_ill(&self, ill: bool) {
        self.set_status(if ill { 500 } else { 0 });
    }

    /// From now on every answer has this status, a 503 with `Retry-After`; 0 is well again.
    pub(crate) fn set_status(&self, status: u16) {
        self.seen.status.store(status, SeqCst);
    }

    /// From now on no request is answered.
    pub(crate) fn fall_silent(&self) {
        self.set_status(SILENT);
    }
}

/// A status for no answer at all.
const SILENT: u16 = 1;

/// A request as it came.
struct Request {
    head: String,
    body: Vec<u8>,
}

impl Request {
    fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }
}

async fn read(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Request> {
    let end = loop {
        if let Some(end) = find(buffer, b"\r\n\r\n") {
            break end + 4;
        }
        more(socket, buffer).await?;
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end);
    let lower = head.to_ascii_lowercase();
    if lower.contains("expect: 100-continue") {
        let interim = "HTTP/1.1 100 Continue\r\n\r\n";
        socket.write_all(interim.as_bytes()).await.ok()?;
    }
    let length = lower.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name == "content-length").then(|| value.trim().parse::<usize>().expect("a number"))
    });
    let end = if lower.contains("transfer-encoding: chunked") {
        loop {
            // The tests' chunks hold no such bytes.
            if let Some(last) = find(buffer, b"0\r\n")
                && let Some(end) = find(&buffer[last..], b"\r\n\r\n")
            {
                break last + end + 4;
            }
            more(socket, buffer).await?;
        }
    } else {
        let length = length.unwrap_or(0);
        while buffer.len() < length {
            more(socket, buffer).await?;
        }
        length
    };
    let body = buffer.drain(..end).collect();
    Some(Request { head, body })
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

async fn more(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    (socket.read_buf(buffer).await.ok()? > 0).then_some(())
}

async fn serve(mut socket: TcpStream, seen: Arc<Seen>) {
    let mut buffer = Vec::new();
    while let Some(request) = read(&mut socket, &mut buffer).await {
        seen.requests.fetch_add(1, SeqCst);
        if answer(&mut socket, &request, &seen).await.is_none() {
            return;
        }
    }
}

/// What is answered to some paths, or the beginning of it; to others nothing fixed.
fn fixed(path: &str) -> &'static str {
    match path {
        "/cut-head" => "HTTP/1.1 200 O",
        "/reset-head" => "HTTP/1.1 200 O",
        "/reset-body" => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc",
        // A chunk whose length is more than any number holds, and one that begins with no number.
        "/huge-chunk" => {
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nfffffffffffffffff\r\n"
        }
        "/bad-chunk" => {
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n-1\r\nabc"
        }
        "/cut-body" => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc",
        "/close-after" => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "/two-lengths" => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
        "/no-http" => "nonsense\r\n\r\n",
        "/unasked" => {
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"
        }
        "/redirect" => "HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n",
        "/range" => {
            "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 0-1/9\r\ncontent-length: 2\r\n\r\nab"
        }
        "/internal" => {
            "HTTP/1.1 200 OK\r\nx-internal-service-name: s\r\nx-db-query-count: 3\r\nconnection: x-hop\r\nx-hop: 1\r\n\
             content-encoding: gzip\r\ncontent-length: 2\r\n\r\nok"
        }
        "/trailers" => {
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n"
        }
        "/secret-trailers" => concat!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n",
            "X-Internal-Secret: s\r\nx-db-query-count: 3\r\nSet-Cookie: a=b\r\nX-Sum: 7\r\n\r\n"
        ),
        "/torn-trailers" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "/bad-trailers" => {
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nno field\r\n\r\n"
        }
        "/dated" => {
            "HTTP/1.1 200 OK\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\ncontent-length: 2\r\n\r\nok"
        }
        "/until-close" => "HTTP/1.1 200 OK\r\n\r\nabc",
        "/hints" => {
            "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
        }
        "/hints-and-cut" => "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n",
        "/head" => "HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n",
        "/pause" => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc",
        "/events" => "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n",
        "/chunked-events" => {
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
             4\r\ndata\r\n5\r\n: 1\n\n\r\n"
        }
        "/half-event" => "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n",
        "/packed-events" => {
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: br\r\n\r\ndata: 1\n\n"
        }
        _ => "",
    }
}

/// `None` when the connection is to be closed.
async fn answer(socket: &mut TcpStream, request: &Request, seen: &Seen) -> Option<()> {
    let path = request.path();
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    match seen.status.load(SeqCst) {
        0 => {}
        SILENT => {
            let _ = socket.read_u8().await;
            return None;
        }
        status => {
            let rest = if status == 503 {
                "retry-after: 60\r\n"
            } else {
                ""
            };
            let text = format!("HTTP/1.1 {status} Ill\r\n{rest}content-length: 3\r\n\r\nill");
            return socket.write_all(text.as_bytes()).await.ok();
        }
    }
    let keeps = !matches!(
        path,
        "/drop" | "/cut-head" | "/cut-body" | "/close-after" | "/until-close" | "/hints-and-cut"
    );
    let fixed = fixed(path);
    socket.write_all(fixed.as_bytes()).await.ok()?;
    if path.starts_with("/reset-") {
        let linger = Some(std::time::Duration::ZERO);
        socket2::SockRef::from(&*socket)
            .set_linger(linger)
            .expect("a socket");
        return None;
    }
    match path {
        "/never" | "/pause" | "/events" | "/chunked-events" | "/half-event" | "/packed-events" => {
            // Until the other end closes.
            let _ = socket.read_u8().await;
            seen.gone.fetch_add(1, SeqCst);
            None
        }
        "/torn-trailers" => {
            let rest = "2\r\nok\r\n0\r\nX-Internal-Secret: s\r\nX-Sum: 7\r\nx-internal-: \r\n\r\n";
            for byte in rest.as_bytes() {
                socket.write_all(&[*byte]).await.ok()?;
                tokio::task::yield_now().await;
            }
            Some(())
        }
        "/endless" => endless(socket, seen).await,
        "/big-head" => {
            let head = format!("HTTP/1.1 200 OK\r\nx-big: {}\r\n\r\n", "x".repeat(1 << 20));
            socket.write_all(head.as_bytes()).await.ok()
        }
        _ if !fixed.is_empty() || !keeps => keeps.then_some(()),
        _ => {
            let mut text = request.head.clone().into_bytes();
            text.extend_from_slice(&request.body);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len());
            socket.write_all(head.as_bytes()).await.ok()?;
            socket.write_all(&text).await.ok()
        }
    }
}

async fn endless(socket: &mut TcpStream, seen: &Seen) -> Option<()> {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    socket.write_all(head.as_bytes()).await.ok()?;
    let chunk = format!("{:x}\r\n{}\r\n", 65_536, "x".repeat(65_536));
    while socket.write_all(chunk.as_bytes()).await.is_ok() {}
    seen.gone.fetch_add(1, SeqCst);
    None
}
