//! A TCP proxy between one node and Redis, that does to their connection what networks do.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::resp::Frame;

/// What happens to the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// They pass.
    Passing,
    /// Every connection ends, and no new one lives.
    Cut,
    /// Connections are accepted and stay; nothing passes either way.
    Swallowed,
    /// What the node says passes; what Redis answers does not.
    Mute,
    /// Everything takes so much longer, either way.
    Slow(Duration),
    /// So many of a hundred publications do not reach the node; everything else does.
    Lossy(u64),
    /// On the connections that there are, nothing that is pushed reaches the node; answers do. New ones are well.
    Deaf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Control {
    target: SocketAddr,
    traffic: Traffic,
}

/// A running proxy.
pub(crate) struct Proxy {
    address: SocketAddr,
    control: watch::Sender<Control>,
    dropped: Arc<AtomicU64>,
}

impl Proxy {
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("an address");
        let traffic = Traffic::Passing;
        let (control, watching) = watch::channel(Control { target, traffic });
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = dropped.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(carry(stream, watching.clone(), counter.clone()));
            }
        });
        Self {
            address,
            control,
            dropped,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    pub(crate) fn set(&self, traffic: Traffic) {
        self.control
            .send_modify(|control| control.traffic = traffic);
    }

    /// From now on connections lead to another server; those to the old one end.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        self.control.send_modify(|control| control.target = target);
    }

    /// How many pushes it kept from the node.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Carries one connection until either side ends it, or the proxy does.
async fn carry(node: TcpStream, mut control: watch::Receiver<Control>, dropped: Arc<AtomicU64>) {
    let now = loop {
        let now = *control.borrow_and_update();
        match now.traffic {
            Traffic::Cut => return,
            Traffic::Swallowed => {
                if control.changed().await.is_err() {
                    return;
                }
            }
            _ => break now,
        }
    };
    let Ok(redis) = TcpStream::connect(now.target).await else {
        return;
    };
    let _ = (node.set_nodelay(true), redis.set_nodelay(true));
    let (from_node, to_node) = node.into_split();
    let (from_redis, to_redis) = redis.into_split();
    let up = Pump {
        from: from_node,
        to: to_redis,
        control: control.clone(),
        target: now.target,
        is_down: false,
        is_well: true,
        dropped: dropped.clone(),
    };
    let down = Pump {
        from: from_redis,
        to: to_node,
        control,
        target: now.target,
        is_down: true,
        is_well: now.traffic == Traffic::Deaf,
        dropped,
    };
    tokio::select! {
        () = up.run() => {}
        () = down.run() => {}
    }
}

/// One direction.
struct Pump {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    control: watch::Receiver<Control>,
    target: SocketAddr,
    is_down: bool,
    /// It was made while older ones brought nothing.
    is_well: bool,
    dropped: Arc<AtomicU64>,
}

impl Pump {
    async fn run(mut self) {
        let mut buffer = Vec::with_capacity(64 * 1024);
        let mut under_way: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
        loop {
            let Control { target, traffic } = *self.control.borrow_and_update();
            if traffic == Traffic::Cut || target != self.target {
                return;
            }
            let stands_still =
                traffic == Traffic::Swallowed || (traffic == Traffic::Mute && self.is_down);
            if stands_still {
                if self.control.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let pause = match traffic {
                Traffic::Slow(pause) => pause,
                _ => Duration::ZERO,
            };
            let due = under_way.front().map(|(read_at, _)| *read_at + pause);
            let has_any = due.is_some();
            tokio::select! {
                biased;
                changed = self.control.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if has_any => {
                    let (_, out) = under_way.pop_front().unwrap_or((Instant::now(), Vec::new()));
                    if self.to.write_all(&out).await.is_err() {
                        return;
                    }
                }
                read = self.from.read_buf(&mut buffer) => {
                    if !matches!(read, Ok(1..)) {
                        return;
                    }
                    let out = self.take(&mut buffer, traffic);
                    under_way.push_back((Instant::now(), out));
                }
            }
        }
    }

    /// What is to go on of what was read. Downwards only whole frames, so that a change of the traffic finds a border.
    fn take(&self, buffer: &mut Vec<u8>, traffic: Traffic) -> Vec<u8> {
        if !self.is_down {
            return std::mem::take(buffer);
        }
        let (mut out, mut at) = (Vec::with_capacity(buffer.len()), 0);
        while let Some((frame, length)) = Frame::read(&buffer[at..]) {
            if !(self.is_well && traffic == Traffic::Deaf) && is_lost(&frame, traffic) {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            } else {
                out.extend_from_slice(&buffer[at..at + length]);
            }
            at += length;
        }
        buffer.drain(..at);
        out
    }
}

fn is_lost(frame: &Frame<'_>, traffic: Traffic) -> bool {
    let Some(channel) = frame.message_of() else {
        return false;
    };
    match traffic {
        Traffic::Deaf => true,
        Traffic::Lossy(percent) => {
            channel.ends_with(":envelopes") && rand::random::<u64>() % 100 < percent
        }
        _ => false,
    }
}
