//! What a client can ask, whichever format its message is in.

use std::borrow::Cow;
use std::sync::Arc;

use crate::model::{ChannelKey, Epoch, ErrorCode, Payload};
use crate::protocol::payload::PayloadError;
use crate::protocol::{ClaimedPosition, Command, CommandId, DecodeError, Request};

/// The most bytes of an id that is a string.
const ID_BYTES_MAX: usize = 64;

/// The most bytes of a publication's key.
const KEY_BYTES_MAX: usize = 255;

/// How much of an unknown type is given back, in bytes.
const KIND_BYTES_MAX: usize = 64;

/// One field's value, not looked into yet.
pub(super) trait Field<'a>: Copy {
    fn is_null(self) -> bool;
    fn text(self) -> Option<Cow<'a, str>>;
    fn unsigned(self) -> Option<u64>;
    fn signed(self) -> Option<i64>;
    fn boolean(self) -> Option<bool>;
    /// The fields of an object.
    fn fields(self) -> Option<Fields<Self>>;
    fn payload(self) -> Result<Payload, PayloadError>;
}

/// Every field that some message has.
#[derive(Debug, Clone, Copy)]
pub(super) enum Name {
    Type,
    Id,
    Channel,
    Data,
    Key,
    Recover,
    Since,
    Presence,
    Limit,
    Token,
    Epoch,
    Offset,
}

impl Name {
    const ALL: [(Self, &'static str); 12] = [
        (Self::Type, "type"),
        (Self::Id, "id"),
        (Self::Channel, "channel"),
        (Self::Data, "data"),
        (Self::Key, "key"),
        (Self::Recover, "recover"),
        (Self::Since, "since"),
        (Self::Presence, "presence"),
        (Self::Limit, "limit"),
        (Self::Token, "token"),
        (Self::Epoch, "epoch"),
        (Self::Offset, "offset"),
    ];

    /// The field of this name; `None` for one that nobody reads.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let known = Self::ALL.iter().find(|(_, name)| *name == text)?;
        Some(known.0)
    }

    const fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// The known fields of a message, in whatever order they came. The last of two with one name counts.
pub(super) struct Fields<F>([Option<F>; Name::ALL.len()]);

impl<F> Default for Fields<F> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| None))
    }
}

impl<F> Fields<F> {
    pub(super) fn set(&mut self, name: Name, value: F) {
        self.0[name as usize] = Some(value);
    }
}

/// What is wrong, in words for the client.
type Fault = String;

/// A message's command and id.
pub(super) fn request<'a, F: Field<'a>>(fields: &Fields<F>) -> Result<Request, DecodeError> {
    let id = fields.id().map_err(|message| bad_request(None, message))?;
    match fields.command() {
        Ok(command) => Ok(Request { id, command }),
        Err(message) => Err(bad_request(id, message)),
    }
}

/// The error for a message that cannot be read.
pub(super) fn bad_request(id: Option<CommandId>, message: impl Into<String>) -> DecodeError {
    DecodeError {
        id,
        code: ErrorCode::BadRequest,
        message: message.into(),
    }
}

impl<'a, F: Field<'a>> Fields<F> {
    fn command(&self) -> Result<Command, Fault> {
        let Some(kind) = self.get(Name::Type) else {
            return Err("Missing message type".to_owned());
        };
        let kind = kind.text().ok_or("type must be a string")?;
        Ok(match kind.as_ref() {
            "subscribe" => self.subscribe()?,
            "unsubscribe" => Command::Unsubscribe {
                channel: self.channel()?,
            },
            "publish" => self.publish()?,
            "history" => self.history()?,
            "presence" => Command::Presence {
                channel: self.channel()?,
            },
            "ping" => Command::Ping,
            "pong" => Command::Pong,
            "refresh" => Command::Refresh {
                token: self.required_text(Name::Token)?,
            },
            "update_api_key" => Command::UpdateApiKey {
                key: self.required_text(Name::Key)?,
            },
            unknown => Command::Unknown {
                kind: unknown[..unknown.floor_char_boundary(KIND_BYTES_MAX)].into(),
            },
        })
    }

    fn subscribe(&self) -> Result<Command, Fault> {
        Ok(Command::Subscribe {
            channel: self.channel()?,
            recover: self.position(Name::Recover)?,
            presence: self.flag(Name::Presence)?,
        })
    }

    fn publish(&self) -> Result<Command, Fault> {
        let channel = self.channel()?;
        // Here alone null is a value and not the lack of one.
        let data = self.0[Name::Data as usize].ok_or_else(|| missing(Name::Data))?;
        Ok(Command::Publish {
            channel,
            data: data.payload().map_err(|fault| format!("data: {fault}"))?,
            key: self.key()?,
        })
    }

    fn history(&self) -> Result<Command, Fault> {
        Ok(Command::History {
            channel: self.channel()?,
            limit: self.limit()?,
            since: self.position(Name::Since)?,
        })
    }

    /// A field that is there and not null.
    fn get(&self, name: Name) -> Option<F> {
        self.0[name as usize].filter(|field| !field.is_null())
    }

    fn required_text(&self, name: Name) -> Result<Box<str>, Fault> {
        let field = self.get(name).ok_or_else(|| missing(name))?;
        let text = field.text().ok_or_else(|| must_be(name, "a string"))?;
        Ok(text.into_owned().into_boxed_str())
    }

    fn id(&self) -> Result<Option<CommandId>, Fault> {
        let Some(id) = self.get(Name::Id) else {
            return Ok(None);
        };
        if let Some(integer) = id.signed() {
            return Ok(Some(CommandId::Integer(integer)));
        }
        match id.text() {
            Some(text) if text.len() <= ID_BYTES_MAX => Ok(Some(CommandId::Text(text.into()))),
            _ => Err(must_be(
                Name::Id,
                "a 64-bit integer or a string of at most 64 bytes",
            )),
        }
    }

    fn channel(&self) -> Result<ChannelKey, Fault> {
        let field = self
            .get(Name::Channel)
            .ok_or_else(|| missing(Name::Channel))?;
        let name = field
            .text()
            .ok_or_else(|| must_be(Name::Channel, "a string"))?;
        ChannelKey::new(&name).map_err(|fault| fault.to_string())
    }

    fn key(&self) -> Result<Option<Arc<str>>, Fault> {
        let Some(field) = self.get(Name::Key) else {
            return Ok(None);
        };
        match field.text() {
            Some(text) if text.len() <= KEY_BYTES_MAX => Ok(Some(Arc::from(&*text))),
            _ => Err(must_be(Name::Key, "a string of at most 255 bytes")),
        }
    }

    fn flag(&self, name: Name) -> Result<bool, Fault> {
        match self.get(name) {
            Some(field) => field
                .boolean()
                .ok_or_else(|| must_be(name, "true or false")),
            None => Ok(false),
        }
    }

    fn limit(&self) -> Result<Option<u32>, Fault> {
        let Some(field) = self.get(Name::Limit) else {
            return Ok(None);
        };
        match field.unsigned().map(u32::try_from) {
            Some(Ok(limit)) => Ok(Some(limit)),
            _ => Err(must_be(Name::Limit, "an integer from 0 to 4294967295")),
        }
    }

    /// Where the client says that it stands. An epoch that is no epoch, or null, is simply an unknown one.
    fn position(&self, name: Name) -> Result<Option<ClaimedPosition>, Fault> {
        let Some(field) = self.get(name) else {
            return Ok(None);
        };
        let within = |fault: Fault| format!("{}.{fault}", name.as_str());
        let position = field.fields().ok_or_else(|| must_be(name, "an object"))?;
        Ok(Some(ClaimedPosition {
            epoch: position.epoch().map_err(within)?,
            offset: position.offset().map_err(within)?,
        }))
    }

    fn epoch(&self) -> Result<Option<Epoch>, Fault> {
        let field = self.0[Name::Epoch as usize].ok_or_else(|| missing(Name::Epoch))?;
        if field.is_null() {
            return Ok(None);
        }
        let text = field
            .text()
            .ok_or_else(|| must_be(Name::Epoch, "a string"))?;
        Ok(Epoch::parse(&text))
    }

    fn offset(&self) -> Result<u64, Fault> {
        let field = self
            .get(Name::Offset)
            .ok_or_else(|| missing(Name::Offset))?;
        let offset = field.unsigned();
        offset.ok_or_else(|| must_be(Name::Offset, "an integer from 0 to 18446744073709551615"))
    }
}

fn missing(name: Name) -> Fault {
    format!("{} is missing", name.as_str())
}

fn must_be(name: Name, what: &str) -> Fault {
    format!("{} must be {what}", name.as_str())
}
