//! An upstream that says to all who listen what the test says.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::{self, Receiver};

/// What cuts every stream.
const CUT: &str = "";

/// What is answered until the test says otherwise.
const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: hello\n\n";

/// A listening upstream; ends with the test's runtime.
pub(crate) struct Ticker {
    address: SocketAddr,
    seen: Arc<Seen>,
}

struct Seen {
    heads: Mutex<Vec<String>>,
    listeners: AtomicUsize,
    says: broadcast::Sender<String>,
    answer: Mutex<String>,
}

impl Ticker {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Seen {
            heads: Mutex::default(),
            listeners: AtomicUsize::new(0),
            says: broadcast::Sender::new(10_000),
            answer: Mutex::new(HELLO.to_owned()),
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

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// What is answered from now on; a stream of events goes on with what is said.
    pub(crate) fn answers(&self, text: &str) {
        text.clone_into(&mut self.seen.answer.lock().expect("no panic"));
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
    let says = seen.says.subscribe();
    seen.heads.lock().expect("no panic").push(head);
    let answer = seen.answer.lock().expect("no panic").clone();
    if !answer.contains("text/event-stream") {
        return socket.write_all(answer.as_bytes()).await.ok();
    }
    // Before the answer: whoever has that is counted.
    seen.listeners.fetch_add(1, SeqCst);
    tell(&mut socket, &answer, says).await;
    seen.listeners.fetch_sub(1, SeqCst);
    None
}

/// Says all that is said, until the other end goes or the test cuts it off.
async fn tell(socket: &mut TcpStream, answer: &str, mut says: Receiver<String>) -> Option<()> {
    socket.write_all(answer.as_bytes()).await.ok()?;
    let mut rest = [0; 16];
    loop {
        tokio::select! {
            said = says.recv() => match said {
                Ok(said) if said != CUT => socket.write_all(said.as_bytes()).await.ok()?,
                _ => return None,
            },
            // It says nothing more: it has gone.
            _ = socket.read(&mut rest) => return None,
        }
    }
}
