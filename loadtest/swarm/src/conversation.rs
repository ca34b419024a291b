//! What arrived bytes mean: the handshake's answer, then frames or events, told apart and booked. Everything that a
//! subscriber says back is decided here too.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;

use memchr::memmem;

use crate::clock;
use crate::connection::{Connection, Phase};
use crate::frame::{self, Step};
use crate::gauge::Gauge;
use crate::payload::StampReader;
use crate::plan::{ACCEPT, Behaviour, CommandKind, Plan, Protocol};
use crate::sse;
use crate::tally::Tally;

/// How a publication begins in a text frame of the hub.
const PUBLICATION: &[u8] = br#"{"type":"publication""#;

/// The connection must end: the peer broke the protocol or ended it.
pub(crate) struct Over;

/// The books of one reader thread and what it needs to understand what arrives.
pub(crate) struct Conversation<'a> {
    plan: &'a Plan,
    gauge: &'a Gauge,
    /// Index of this thread's first connection in the whole swarm.
    first: usize,
    stamps: StampReader,
    /// When each unanswered command of each connection was sent; answers come in order.
    unanswered: Vec<VecDeque<u64>>,
    pub(crate) answers: u64,
    /// How many commands were sent: no two are the same.
    commands: u64,
    pub(crate) tally: Tally,
}

impl<'a> Conversation<'a> {
    /// Nothing said yet.
    pub(crate) fn new(
        plan: &'a Plan,
        gauge: &'a Gauge,
        first: usize,
        connections: usize,
        tally: Tally,
    ) -> Self {
        let commanding = matches!(plan.behaviour, Behaviour::Command(..));
        Conversation {
            plan,
            gauge,
            first,
            stamps: StampReader::default(),
            unanswered: vec![VecDeque::new(); if commanding { connections } else { 0 }],
            answers: 0,
            commands: 0,
            tally,
        }
    }

    /// The TCP connection stands.
    pub(crate) fn handle_connected(
        &mut self,
        index: usize,
        connection: &mut Connection,
    ) -> Result<(), Over> {
        if self.plan.protocol == Protocol::Raw {
            self.live(connection);
            return Ok(());
        }
        connection.phase = Phase::Upgrading;
        let request = self.plan.request(self.first + index);
        if connection.send(&request) {
            Ok(())
        } else {
            Err(Over)
        }
    }

    /// Understands as much of `bytes` as is whole and says how much that was.
    #[inline]
    pub(crate) fn handle_bytes(
        &mut self,
        index: usize,
        connection: &mut Connection,
        bytes: &[u8],
        now: u64,
    ) -> Result<usize, Over> {
        let mut used = 0;
        if connection.phase == Phase::Upgrading {
            used = self.handle_head(index, connection, bytes)?;
            if used == 0 {
                return Ok(0);
            }
        }
        let rest = &bytes[used..];
        let walked = match self.plan.protocol {
            Protocol::Sse | Protocol::Shared => self.handle_events(index, connection, rest, now),
            Protocol::Ws | Protocol::Raw => self.handle_frames(index, connection, rest, now)?,
        };
        Ok(used + walked)
    }

    fn handle_head(
        &mut self,
        index: usize,
        connection: &mut Connection,
        bytes: &[u8],
    ) -> Result<usize, Over> {
        let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
            return Ok(0);
        };
        let head = &bytes[..end];
        let fine = match self.plan.protocol {
            Protocol::Sse | Protocol::Shared => head.starts_with(b"HTTP/1.1 200"),
            _ => head.starts_with(b"HTTP/1.1 101") && memmem::find(head, ACCEPT).is_some(),
        };
        if !fine {
            self.tally.trouble(|| {
                format!(
                    "refused: {}",
                    String::from_utf8_lossy(bytes).replace("\r\n", " | ")
                )
            });
            return Err(Over);
        }
        connection.phase = Phase::Joining;
        if self.plan.protocol == Protocol::Ws
            && let Some(subscribe) = self.plan.subscribe(self.first + index)
            && !connection.send(&subscribe)
        {
            return Err(Over);
        }
        Ok(end + 4)
    }

    #[inline]
    fn handle_frames(
        &mut self,
        index: usize,
        connection: &mut Connection,
        bytes: &[u8],
        now: u64,
    ) -> Result<usize, Over> {
        let mut used = 0;
        let mut answered = 0;
        loop {
            match frame::next(&bytes[used..]) {
                Step::Frame {
                    opcode: frame::TEXT | frame::BINARY,
                    payload,
                    length,
                } => {
                    used += length;
                    if payload.starts_with(PUBLICATION) {
                        self.book(index, payload, now);
                    } else if self.handle_message(index, connection, payload, now)? {
                        answered += 1;
                    }
                }
                Step::Frame {
                    opcode,
                    payload,
                    length,
                } => {
                    used += length;
                    self.handle_control(connection, opcode, payload)?;
                }
                Step::Partial => break,
                Step::Broken => {
                    self.tally
                        .trouble(|| "a frame with reserved bits or a mask".to_owned());
                    return Err(Over);
                }
            }
        }
        if answered > 0 {
            self.command(index, connection, answered)?;
        }
        Ok(used)
    }

    #[inline]
    fn book(&mut self, index: usize, bytes: &[u8], now: u64) {
        if self.tally.delivered()
            && let Some(stamp) = self.stamps.read(bytes)
        {
            self.tally.arrived(index, stamp, now, &self.plan.window);
        }
    }

    fn handle_control(
        &mut self,
        connection: &mut Connection,
        opcode: u8,
        payload: &[u8],
    ) -> Result<(), Over> {
        match opcode {
            frame::PING => {
                self.gauge
                    .pings
                    .store(self.gauge.pings.load(Relaxed) + 1, Relaxed);
                let pong = frame::masked(frame::PONG, payload);
                if connection.send(&pong) {
                    Ok(())
                } else {
                    Err(Over)
                }
            }
            frame::CLOSE => {
                let code = frame::close_code(payload);
                *self.tally.closes.entry(code).or_default() += 1;
                let reason = payload.get(2..).unwrap_or_default();
                self.tally
                    .trouble(|| format!("closed with {code} {}", String::from_utf8_lossy(reason)));
                connection.send(&frame::masked(
                    frame::CLOSE,
                    payload.get(..2).unwrap_or_default(),
                ));
                Err(Over)
            }
            _ => Ok(()),
        }
    }

    /// A message that is no publication; true when it answers a command of `Behaviour::Command`.
    fn handle_message(
        &mut self,
        index: usize,
        connection: &mut Connection,
        payload: &[u8],
        now: u64,
    ) -> Result<bool, Over> {
        // The hot case of `commands`, decided without parsing; errors are answers too, and are counted below.
        let error = payload.starts_with(br#"{"type":"error""#);
        if connection.phase == Phase::Live && !self.unanswered.is_empty() && !error {
            return Ok(self.answered(index, now));
        }
        let message: serde_json::Value = serde_json::from_slice(payload).unwrap_or_default();
        match message["type"].as_str().unwrap_or_default() {
            "connected" if connection.phase == Phase::Joining && self.plan.channels.is_empty() => {
                self.live(connection);
                if let Behaviour::Command(_, depth) = self.plan.behaviour {
                    self.command(index, connection, depth)?;
                }
            }
            "subscribed" if connection.phase == Phase::Joining => self.live(connection),
            // Another hub's or a peer's order of fields.
            "publication" => self.book(index, payload, now),
            "gap" => self.tally.gaps += 1,
            "error" => {
                self.tally.errors += 1;
                self.tally
                    .trouble(|| String::from_utf8_lossy(payload).into_owned());
                return if connection.phase == Phase::Joining {
                    Err(Over)
                } else {
                    Ok(self.answered(index, now))
                };
            }
            "subscribed" if connection.phase == Phase::Live => {
                self.answers += 1;
                if message["recovered"] != true {
                    self.tally
                        .trouble(|| format!("not recovered: {}", String::from_utf8_lossy(payload)));
                }
            }
            "pong" if connection.phase == Phase::Live => self.answers += 1,
            _ => {}
        }
        Ok(false)
    }

    fn answered(&mut self, index: usize, now: u64) -> bool {
        let Some(sent) = self.unanswered.get_mut(index).and_then(VecDeque::pop_front) else {
            return false;
        };
        self.answers += 1;
        self.tally.latency.saturating_record(now - sent);
        true
    }

    /// Sends `count` more commands in one write.
    fn command(
        &mut self,
        index: usize,
        connection: &mut Connection,
        count: usize,
    ) -> Result<(), Over> {
        let Behaviour::Command(kind, _) = self.plan.behaviour else {
            return Ok(());
        };
        let mut bytes = Vec::with_capacity(count * 96);
        for _ in 0..count {
            self.commands += 1;
            let text = command_text(kind, self.first + index, self.commands);
            frame::put_masked(&mut bytes, frame::TEXT, text.as_bytes());
        }
        let now = clock::now();
        self.unanswered[index].extend(std::iter::repeat_n(now, count));
        if connection.send(&bytes) {
            Ok(())
        } else {
            Err(Over)
        }
    }

    fn handle_events(
        &mut self,
        index: usize,
        connection: &mut Connection,
        bytes: &[u8],
        now: u64,
    ) -> usize {
        let mut used = 0;
        while let Some((event, length)) = sse::next(&bytes[used..]) {
            used += length;
            // A shared stream has no first event of the hub's own: what comes first says that it is there.
            if self.plan.protocol == Protocol::Shared && connection.phase == Phase::Joining {
                self.live(connection);
            }
            match event {
                sse::Event::Publication(block) => self.book(index, block, now),
                sse::Event::Connected if connection.phase == Phase::Joining => {
                    self.live(connection)
                }
                sse::Event::Gap => self.tally.gaps += 1,
                sse::Event::Connected | sse::Event::Other => {}
            }
        }
        used
    }

    fn live(&mut self, connection: &mut Connection) {
        let stalls = self.plan.behaviour == Behaviour::Stall;
        connection.phase = if stalls { Phase::Stalled } else { Phase::Live };
        Gauge::count(&self.gauge.joined);
        self.gauge.joined_at.store(clock::now(), Relaxed);
    }
}

/// A command of a connection, the so-manieth that is sent.
fn command_text(kind: CommandKind, connection: usize, number: u64) -> Cow<'static, str> {
    match kind {
        CommandKind::Ping => r#"{"type":"ping","id":7}"#.into(),
        CommandKind::ApiKey if number.is_multiple_of(2) => r#"{"type":"ping"}"#.into(),
        CommandKind::ApiKey => {
            format!(r#"{{"type":"update_api_key","key":"key-{number}"}}"#).into()
        }
        CommandKind::Publish => format!(
            r#"{{"type":"publish","id":7,"channel":"swarm-command-{connection}","data":{{"text":"hello"}}}}"#
        )
        .into(),
    }
}
