//! The way from a node to Redis, which can be cut, filled in, slowed or made to lose publications.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Whole,
    /// Connections end, and new ones end at once.
    Cut,
    /// Nothing passes, and nothing ends: half-open connections.
    BlackHole,
    /// Each piece waits for so long.
    Slow(Duration),
    /// One of so many publications is lost on its way to the node.
    Losing(u64),
}

pub(crate) struct Link {
    pub(crate) address: SocketAddr,
    mode: watch::Sender<Mode>,
    lost: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    /// A link to a server on this port of the machine.
    pub(crate) async fn start(port: u16) -> Self {
        Self::start_as(port, true).await
    }

    /// The same for a replica, to which the server does not speak in answers.
    pub(crate) async fn start_for_replica(port: u16) -> Self {
        Self::start_as(port, false).await
    }

    async fn start_as(port: u16, has_answers: bool) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let (mode, modes) = watch::channel(Mode::Whole);
        let lost = Arc::new(AtomicU64::new(0));
        let counter = has_answers.then(|| lost.clone());
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, port, modes.clone(), counter.clone()));
            }
        });
        Self {
            address,
            mode,
            lost,
            task,
        }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// How many publications it has lost.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

async fn carry(
    near: TcpStream,
    port: u16,
    modes: watch::Receiver<Mode>,
    lost: Option<Arc<AtomicU64>>,
) {
    if *modes.borrow() == Mode::Cut {
        return;
    }
    let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
        return;
    };
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let mut cut = modes.clone();
    tokio::select! {
        _ = cut.wait_for(|mode| *mode == Mode::Cut) => {}
        _ = forth(near_in, far_out, modes.clone()) => {}
        _ = async {
            match lost {
                Some(lost) => back(far_in, near_out, modes.clone(), lost).await,
                None => forth(far_in, near_out, modes.clone()).await,
            }
        } => {}
    }
}

/// Waits as the mode says.
async fn pass(modes: &mut watch::Receiver<Mode>) {
    let mode = *modes.borrow();
    if let Mode::Slow(pause) = mode {
        tokio::time::sleep(pause).await;
    }
    let _ = modes.wait_for(|mode| *mode != Mode::BlackHole).await;
}

async fn forth(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut modes: watch::Receiver<Mode>,
) -> Option<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = from
            .read(&mut buffer)
            .await
            .ok()
            .filter(|count| *count > 0)?;
        pass(&mut modes).await;
        to.write_all(&buffer[..count]).await.ok()?;
    }
}

/// From the server to the node, answer by answer, so that single ones can be lost.
async fn back(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut modes: watch::Receiver<Mode>,
    lost: Arc<AtomicU64>,
) -> Option<()> {
    let (mut buffer, mut count) = (Vec::new(), 0_u64);
    loop {
        let read = from
            .read_buf(&mut buffer)
            .await
            .ok()
            .filter(|count| *count > 0)?;
        debug_assert!(read > 0);
        pass(&mut modes).await;
        let (mut whole, mut out) = (0, Vec::new());
        while let Some(length) = length(&buffer[whole..]) {
            let answer = &buffer[whole..whole + length];
            let one_of = match *modes.borrow() {
                Mode::Losing(one_of) if is_publication(answer) => one_of,
                _ => u64::MAX,
            };
            count += 1;
            if one_of != u64::MAX && count.is_multiple_of(one_of) {
                lost.fetch_add(1, Ordering::Relaxed);
            } else {
                out.extend_from_slice(answer);
            }
            whole += length;
        }
        buffer.drain(..whole);
        to.write_all(&out).await.ok()?;
    }
}

fn is_publication(answer: &[u8]) -> bool {
    let head = &answer[..answer.len().min(256)];
    let says = |text: &[u8]| head.windows(text.len()).any(|part| part == text);
    head.starts_with(b">") && says(b"\r\nmessage\r\n") && says(b":envelopes\r\n")
}

/// How long the first answer (RESP3) is; `None` when it is not whole.
fn length(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|pair| pair == b"\r\n")? + 2;
    let number = || {
        let text = std::str::from_utf8(&bytes[1..line - 2]).ok()?;
        text.parse::<i64>().ok()
    };
    let parts = match bytes.first()? {
        b'$' | b'=' | b'!' => {
            let end = usize::try_from(number()?).map_or(line, |length| line + length + 2);
            return (bytes.len() >= end).then_some(end);
        }
        b'*' | b'>' | b'~' => number()?,
        b'%' | b'|' => number()? * 2,
        _ => return Some(line),
    };
    (0..parts).try_fold(line, |at, _| Some(at + length(&bytes[at..])?))
}
