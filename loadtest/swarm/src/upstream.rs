//! An upstream whose stream of events many share through the hub: it serves whoever connects, says how many did, and
//! publishes on their connections.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, anyhow};

use crate::clock::{self, SECOND};
use crate::payload::{self, Stamp};
use crate::publisher::{Published, Publishing};

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

/// A listening upstream. Its thread lives as long as the process.
#[derive(Clone)]
pub(crate) struct Upstream {
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Upstream {
    /// Serves on this address of loopback from now on.
    pub(crate) fn listen(address: SocketAddrV4) -> Result<Self> {
        let listener =
            TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
        let upstream = Upstream {
            streams: Arc::default(),
        };
        let streams = upstream.streams.clone();
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                if let Ok(socket) = serve(socket) {
                    streams
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(socket);
                }
            }
        });
        Ok(upstream)
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Says events at `rate` a second on every connection, each at its intended time.
    pub(crate) fn publish(&self, publishing: &Publishing, rate: f64) -> Result<Published> {
        let template = payload::template(publishing.payload_bytes)?;
        let mut event = [b"data: ", template.as_slice(), b"\n\n"].concat();
        let mut published = Published::new();
        loop {
            let number = published.count;
            let at = publishing.from + (number as f64 * SECOND as f64 / rate) as u64;
            if at >= publishing.to {
                return Ok(published);
            }
            clock::sleep_until(at);
            published.lateness.saturating_record(clock::now() - at);
            payload::patch(&mut event[b"data: ".len()..], Stamp { at, number });
            let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
            for mut stream in streams.iter() {
                stream.write_all(&event).context("writing an event")?;
            }
            published.count += 1;
        }
    }
}

/// Reads a request, whatever it asks, and answers with the head of a stream.
fn serve(mut socket: TcpStream) -> Result<TcpStream> {
    socket.set_nodelay(true)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if socket.read(&mut byte)? == 0 || head.len() > 8192 {
            return Err(anyhow!("no request"));
        }
        head.push(byte[0]);
    }
    socket.write_all(HEAD)?;
    Ok(socket)
}
