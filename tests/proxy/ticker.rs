//! An upstream that says to all who listen what the test says.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;

/// What cuts every stream.
const CUT: &str = "";

/// A listening upstream; ends with the test's runtime.
pub(crate) struct Ticker {
    address: SocketAddr,
    seen: Arc<Seen>,
}

struct Seen {
    heads: Mutex<Vec<String>>,
    listeners: AtomicUsize,
    says: broadcast::Sender<String>,
}

impl Ticker {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Seen {
            heads: Mutex::default(),
            listeners: AtomicUsize::new(0),
            says: broadcast::Sender::new(100),
        });
        let shared = seen.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, shared.clone()));
            }
        });
        Self { address, seen }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Says something to all who listen.
    pub(crate) fn say(&self, text: &str) {
        self.seen.says.send(text.to_owned()).expect("a listener");
    }

    /// Ends all streams.
    pub(crate) fn cut(&self) {
        self.say(CUT);
    }

    /// How many listen.
    pub(crate) fn listeners(&self) -> usize {
        self.seen.listeners.load(SeqCst)
    }

    /// The heads of all requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.seen.heads.lock().expect("no panic").clone()
    }
}

async fn serve(mut socket: TcpStream, seen: Arc<Seen>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let is_refused = head.contains("/refused");
    seen.heads.lock().expect("no panic").push(head);
    if is_refused {
        let text = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n";
        return socket.write_all(text.as_bytes()).await.ok();
    }
    let mut says = seen.says.subscribe();
    let text = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: hello\n\n";
    socket.write_all(text.as_bytes()).await.ok()?;
    seen.listeners.fetch_add(1, SeqCst);
    let mut rest = [0; 16];
    loop {
        tokio::select! {
            said = says.recv() => match said {
                Ok(said) if said != CUT => socket.write_all(said.as_bytes()).await.ok()?,
                _ => break,
            },
            // It says nothing more: it has gone.
            _ = socket.read(&mut rest) => break,
        }
    }
    seen.listeners.fetch_sub(1, SeqCst);
    None
}
