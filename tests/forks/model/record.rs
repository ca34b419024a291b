//! What clients of the model are sent, in records of one size: a wire format without parsing.

use fanfare::model::{ChannelKey, Encode, Epoch, Member, Position, Publication, WireFormat};

const BYTES: usize = 34;

/// How a subscription begins. Clients hear whether it is recovered; who says so is for the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begun {
    /// It did not ask for what it missed.
    Anew,
    /// Recovered, because it stands where the hub's other subscribers stand, and will be told what they are told.
    WithOthers,
    /// Recovered, because a server said so.
    Recovered,
    Lost,
}

/// What a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record {
    /// Its offset and content, and the epoch where it is named.
    Publication(Option<Epoch>, u64, u64),
    Gap(Position),
    /// From where on it receives, and how it came there.
    Subscribed(Position, Begun),
    /// The broker is away.
    Refused,
}

impl Record {
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        let (kind, epoch, offset, content) = match self {
            Self::Publication(epoch, offset, content) => (0, epoch, offset, content),
            Self::Gap(at) => (1, Some(at.epoch), at.offset, 0),
            Self::Subscribed(at, begun) => (2, Some(at.epoch), at.offset, begun as u64),
            Self::Refused => (3, None, 0, 0),
        };
        out.push(kind);
        let text = epoch.map(|epoch| epoch.to_string()).unwrap_or_default();
        let bits = bits(&text);
        out.push(u8::from(epoch.is_some()));
        out.extend_from_slice(&bits.to_le_bytes());
        out.extend_from_slice(&offset.to_le_bytes());
        out.extend_from_slice(&content.to_le_bytes());
    }

    /// Takes the next one out.
    pub(crate) fn take(bytes: &mut Vec<u8>) -> Option<Self> {
        let record: [u8; BYTES] = bytes.get(..BYTES)?.try_into().ok()?;
        bytes.drain(..BYTES);
        let number = |at: usize| u64::from_le_bytes(record[at..at + 8].try_into().expect("eight"));
        let epoch = u128::from_le_bytes(record[2..18].try_into().expect("sixteen"));
        let epoch = (record[1] == 1).then(|| Epoch::from_bits(epoch));
        let (offset, content) = (number(18), number(26));
        let position = || Position::new(epoch.expect("an epoch"), offset);
        Some(match record[0] {
            0 => Self::Publication(epoch, offset, content),
            1 => Self::Gap(position()),
            2 => {
                let begun = [
                    Begun::Anew,
                    Begun::WithOthers,
                    Begun::Recovered,
                    Begun::Lost,
                ];
                Self::Subscribed(position(), begun[content as usize])
            }
            _ => Self::Refused,
        })
    }
}

/// The bits of an epoch's text: base64 of 16 bytes.
fn bits(text: &str) -> u128 {
    use base64::Engine as _;
    let decoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text);
    let bytes: Option<[u8; 16]> = decoded.ok().and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u128::from_be_bytes)
}

/// The encoder that hubs are handed.
pub(crate) struct Records;

impl Encode for Records {
    fn publication(
        &mut self,
        _: WireFormat,
        _: &ChannelKey,
        publication: &Publication,
        epoch: Option<Epoch>,
        first: bool,
        out: &mut Vec<u8>,
    ) {
        let text = std::str::from_utf8(publication.data.as_bytes()).expect("text");
        let content = text.parse().expect("a number");
        let epoch = epoch.filter(|_| first);
        Record::Publication(epoch, publication.offset, content).write(out);
    }

    fn join(&mut self, _: WireFormat, _: &ChannelKey, _: &Member, _: &mut Vec<u8>) {}

    fn leave(&mut self, _: WireFormat, _: &ChannelKey, _: &Member, _: &mut Vec<u8>) {}

    fn gap(
        &mut self,
        _: WireFormat,
        _: &ChannelKey,
        _: Option<u64>,
        position: Option<Position>,
        out: &mut Vec<u8>,
    ) {
        Record::Gap(position.expect("history")).write(out);
    }

    fn event_id(&mut self, _: &[Option<Position>], _: u64, _: &mut Vec<u8>) {}
}
