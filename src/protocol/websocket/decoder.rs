//! From a client's bytes to its messages.

use std::ops::ControlFlow;

use super::header::{HEADER_BYTES_MAX, Header};
use super::mask::unmask;
use super::{Event, Limits, Opcode, WebSocketError};

/// What the end of a read cut off: part of a header, part of a payload, or a message whose last fragment has not come.
/// Its memory is at most twice what has arrived, whatever headers declare.
#[derive(Debug, Default)]
pub struct Partial {
    /// The beginning of a header.
    header: [u8; HEADER_BYTES_MAX],
    /// How much of it there is.
    header_len: u8,
    /// The frame whose payload is arriving.
    frame: Option<Arriving>,
    /// The data message that is open.
    message: Option<Message>,
    /// The payload of an arriving control frame.
    control: Vec<u8>,
}

/// A frame whose payload is arriving.
#[derive(Debug, Clone, Copy)]
struct Arriving {
    header: Header,
    received: u64,
}

/// A data message that is not complete.
#[derive(Debug, Default)]
struct Message {
    /// Whether it is text.
    text: bool,
    /// Unmasked.
    payload: Vec<u8>,
    /// How many bytes of a text's payload are known to be UTF-8; at most three follow them.
    checked: usize,
}

/// How far one step came.
struct Step {
    taken: usize,
    flow: Flow,
}

/// What comes after a step.
#[derive(Clone, Copy)]
enum Flow {
    GoOn,
    /// The handler wants to be called again later.
    Stop,
    /// A close frame was handed on.
    Closed,
}

/// Decodes what a client sent, and hands on each message and control frame as it is complete. Tells how many bytes of
/// `input` were consumed: all of them, unless `on_event` said `Break`; call again with the rest then. After a close
/// frame the rest is dropped unread (RFC 6455 section 5.5.1) and counts as consumed: do not call again.
///
/// `partial` is the connection's only memory: `None` at first, `None` again at each message boundary. `input` is
/// overwritten (it is unmasked in place). Text is checked as it arrives, so that bad text is refused before its message
/// is complete.
///
/// # Errors
/// When the client breaks RFC 6455 or `limits`. Events before the fault were handed on; the connection is over.
pub fn decode(
    partial: &mut Option<Box<Partial>>,
    limits: Limits,
    input: &mut [u8],
    on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<usize, WebSocketError> {
    let mut at = 0;
    while at < input.len() {
        let step = step(partial, limits, &mut input[at..], on_event)?;
        at += step.taken;
        match step.flow {
            Flow::GoOn => {}
            Flow::Stop => break,
            Flow::Closed => at = input.len(),
        }
    }
    Ok(at)
}

/// Goes on to the end of a frame or of `input`, which is not empty.
fn step(
    partial: &mut Option<Box<Partial>>,
    limits: Limits,
    input: &mut [u8],
    on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<Step, WebSocketError> {
    if let Some(arriving) = partial.as_ref().and_then(|partial| partial.frame) {
        return fill(partial, arriving, limits, input, on_event);
    }
    let Some((header, header_len)) = next_header(partial, input)? else {
        return Ok(Step {
            taken: input.len(),
            flow: Flow::GoOn,
        });
    };
    let open = partial
        .as_ref()
        .and_then(|partial| partial.message.as_ref());
    check_sequence(header, open, limits)?;
    let body = &mut input[header_len..];
    let stands_alone = header.opcode.is_control() || (header.fin && open.is_none());
    if stands_alone && header.len <= body.len() as u64 {
        release(partial);
        let payload = &mut body[..header.len as usize];
        unmask(payload, header.mask, 0);
        let flow = deliver(header.opcode, payload, on_event)?;
        return Ok(Step {
            taken: header_len + header.len as usize,
            flow,
        });
    }
    let arriving = begin(partial.get_or_insert_default(), header);
    let mut step = fill(partial, arriving, limits, body, on_event)?;
    step.taken += header_len;
    Ok(step)
}

/// The next frame's header, and how many bytes of `input` belong to it. `None` when it is cut off; what there is of it
/// is kept.
fn next_header(
    partial: &mut Option<Box<Partial>>,
    input: &[u8],
) -> Result<Option<(Header, usize)>, WebSocketError> {
    let kept = partial
        .as_ref()
        .map_or(0, |partial| usize::from(partial.header_len));
    if kept == 0 {
        let parsed = Header::parse(input)?;
        if parsed.is_none() {
            keep_header(partial.get_or_insert_default(), input);
        }
        return Ok(parsed);
    }
    let partial = partial.get_or_insert_default();
    let more = input.len().min(HEADER_BYTES_MAX - kept);
    keep_header(partial, &input[..more]);
    let parsed = Header::parse(&partial.header[..kept + more])?;
    Ok(parsed.map(|(header, len)| {
        partial.header_len = 0;
        (header, len - kept)
    }))
}

/// Keeps what is there of a header; the caller has seen that it fits.
fn keep_header(partial: &mut Partial, bytes: &[u8]) {
    let from = usize::from(partial.header_len);
    partial.header[from..from + bytes.len()].copy_from_slice(bytes);
    partial.header_len += bytes.len() as u8;
}

/// Refuses a frame that may not stand here (section 5.4) or that makes its message too big.
fn check_sequence(
    header: Header,
    open: Option<&Message>,
    limits: Limits,
) -> Result<(), WebSocketError> {
    if header.opcode.is_control() {
        return Ok(());
    }
    match (header.opcode, open) {
        (Opcode::Continuation, None) => return Err(WebSocketError::UnexpectedContinuation),
        (Opcode::Text | Opcode::Binary, Some(_)) => {
            return Err(WebSocketError::ExpectedContinuation);
        }
        _ => {}
    }
    let before = open.map_or(0, |message| message.payload.len());
    if header.len > (limits.message_bytes_max.saturating_sub(before)) as u64 {
        return Err(WebSocketError::MessageTooBig);
    }
    Ok(())
}

/// Opens a frame whose payload comes in pieces or belongs to a fragmented message.
fn begin(partial: &mut Partial, header: Header) -> Arriving {
    if matches!(header.opcode, Opcode::Text | Opcode::Binary) {
        partial.message = Some(Message {
            text: header.opcode == Opcode::Text,
            ..Message::default()
        });
    }
    Arriving {
        header,
        received: 0,
    }
}

/// Takes what is there of an arriving frame's payload, and ends the frame if that is all of it.
fn fill(
    slot: &mut Option<Box<Partial>>,
    Arriving { header, received }: Arriving,
    limits: Limits,
    input: &mut [u8],
    on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<Step, WebSocketError> {
    let partial = slot.get_or_insert_default();
    let left = header.len - received;
    let taken = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    let piece = &mut input[..taken];
    unmask(piece, header.mask, received);
    match &mut partial.message {
        Some(message) if !header.opcode.is_control() => {
            let ceiling = match header.fin {
                true => message.payload.len() + left as usize,
                false => limits.message_bytes_max,
            };
            message.append(piece, ceiling)?;
        }
        _ => partial.control.extend_from_slice(piece),
    }
    let flow = if (taken as u64) < left {
        partial.frame = Some(Arriving {
            header,
            received: received + taken as u64,
        });
        Flow::GoOn
    } else {
        end_frame(slot, header, on_event)?
    };
    Ok(Step { taken, flow })
}

/// Hands on what a frame's end completes. The memory goes before the event is told, so that a handler sees the
/// connection as it will be.
fn end_frame(
    slot: &mut Option<Box<Partial>>,
    header: Header,
    on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<Flow, WebSocketError> {
    let partial = slot.get_or_insert_default();
    partial.frame = None;
    if header.opcode.is_control() {
        let payload = std::mem::take(&mut partial.control);
        release(slot);
        return deliver(header.opcode, &payload, on_event);
    }
    if !header.fin {
        return Ok(Flow::GoOn);
    }
    let message = partial.message.take().unwrap_or_default();
    release(slot);
    let opcode = match message.text {
        true => Opcode::Text,
        false => Opcode::Binary,
    };
    deliver(opcode, &message.payload, on_event)
}

/// Drops the connection's memory when nothing is open.
fn release(slot: &mut Option<Box<Partial>>) {
    slot.take_if(|partial| {
        partial.frame.is_none() && partial.message.is_none() && partial.header_len == 0
    });
}

/// Tells one whole message or control frame.
fn deliver(
    opcode: Opcode,
    payload: &[u8],
    on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<Flow, WebSocketError> {
    let event = match opcode {
        Opcode::Text => Event::Text(utf8(payload)?),
        Opcode::Binary | Opcode::Continuation => Event::Binary(payload),
        Opcode::Ping => Event::Ping(payload),
        Opcode::Pong => Event::Pong(payload),
        Opcode::Close => Event::Close(close_payload(payload)?),
    };
    Ok(match (on_event(event), opcode) {
        (_, Opcode::Close) => Flow::Closed,
        (ControlFlow::Break(()), _) => Flow::Stop,
        (ControlFlow::Continue(()), _) => Flow::GoOn,
    })
}

fn utf8(payload: &[u8]) -> Result<&str, WebSocketError> {
    std::str::from_utf8(payload).map_err(|_| WebSocketError::InvalidUtf8)
}

/// The code and reason of a close frame (section 5.5.1).
fn close_payload(payload: &[u8]) -> Result<Option<(u16, &str)>, WebSocketError> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => Ok(None),
            _ => Err(WebSocketError::BadClose),
        };
    };
    match u16::from_be_bytes(*code) {
        // What section 7.4 and IANA's registry allow on the wire; 1005, 1006 and 1015 never are.
        code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => Ok(Some((code, utf8(reason)?))),
        _ => Err(WebSocketError::BadClose),
    }
}

impl Message {
    /// Appends a piece of payload. `ceiling` is the most bytes that the message can come to have.
    fn append(&mut self, piece: &[u8], ceiling: usize) -> Result<(), WebSocketError> {
        self.make_room(piece.len(), ceiling);
        self.payload.extend_from_slice(piece);
        match self.text {
            true => self.check_utf8(),
            false => Ok(()),
        }
    }

    /// Doubles, as a `Vec` does, but not past what can come: the last growth of a big message would waste half.
    fn make_room(&mut self, more: usize, ceiling: usize) {
        let needed = self.payload.len() + more;
        if needed > self.payload.capacity() {
            let target = self
                .payload
                .capacity()
                .saturating_mul(2)
                .min(ceiling)
                .max(needed);
            self.payload.reserve_exact(target - self.payload.len());
        }
    }

    /// Refuses text as soon as no continuation could make it UTF-8. A character that the piece's end cut off waits.
    ///
    /// The whole text is checked once more when it is handed on as `&str`: a second pass, for messages in pieces only.
    fn check_utf8(&mut self) -> Result<(), WebSocketError> {
        match std::str::from_utf8(&self.payload[self.checked..]) {
            Ok(_) => self.checked = self.payload.len(),
            Err(fault) if fault.error_len().is_none() => self.checked += fault.valid_up_to(),
            Err(_) => return Err(WebSocketError::InvalidUtf8),
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "decoder_tests.rs"]
pub(super) mod tests;
