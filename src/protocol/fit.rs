//! Answers with lists, cut to the room that there is.

use std::sync::Arc;

use super::{Reply, json_text};
use crate::model::{Member, Payload, Publication};

/// Braces, names and numbers around an entry, and its client's id.
const ENTRY_BYTES: usize = 128;

/// The same of the answer itself, without its channel.
const ANSWER_BYTES: usize = 512;

impl Reply {
    /// Leaves out the last entries of a list that would make the answer larger than so many bytes, and says that there
    /// is more. The first one stays, however large it is. Answers without a list stay as they are.
    #[must_use]
    pub fn fit(mut self, bytes_max: usize) -> Self {
        match &mut self {
            Self::History {
                publications, more, ..
            } => *more |= cut(publications, bytes_max, publication_bytes),
            Self::Presence { members, more, .. } => {
                *more |= cut(members, bytes_max, member_bytes);
            }
            _ => {}
        }
        self
    }
}

/// Answers whether something was left out.
fn cut<T>(list: &mut Vec<Arc<T>>, bytes_max: usize, bytes: impl Fn(&T) -> usize) -> bool {
    let mut total = ANSWER_BYTES;
    let fitting = list.iter().take_while(|entry| {
        total = total.saturating_add(bytes(entry));
        total <= bytes_max
    });
    let fitting = fitting.count().max(1);
    let is_cut = fitting < list.len();
    list.truncate(fitting);
    is_cut
}

/// As many bytes as it takes at most, in either format.
fn publication_bytes(publication: &Publication) -> usize {
    let origin = publication.origin.as_ref();
    let origin = origin.map_or(0, |origin| json_text::string_bytes(&origin.user));
    let key = publication
        .key
        .as_deref()
        .map_or(0, json_text::string_bytes);
    ENTRY_BYTES + publication.data.len() + origin + key
}

/// The same.
fn member_bytes(member: &Member) -> usize {
    let info = member.info.as_ref().map_or(0, Payload::len);
    ENTRY_BYTES + json_text::string_bytes(&member.user) + info
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ChannelKey, ClientId, Epoch, Origin, Position, WireFormat};
    use crate::protocol::plain::encode_reply;

    const BYTES_MAX: usize = 10_000;

    fn channel() -> ChannelKey {
        ChannelKey::new("news").expect("a name")
    }

    fn presence(info: usize, user: &str) -> Reply {
        let members = (0..1000).map(|client| {
            Arc::new(Member {
                client: ClientId::from_bits(client),
                user: Arc::from(user),
                info: Some(Payload::from_plain_json(format!(
                    "\"{}\"",
                    "x".repeat(info)
                ))),
            })
        });
        Reply::Presence {
            channel: channel(),
            members: members.collect(),
            clients: 1000,
            users: 1,
            more: false,
        }
    }

    fn history(user: &str) -> Reply {
        let publications = (1..=1000).map(|offset| {
            Arc::new(Publication {
                offset,
                data: Payload::from_plain_json("1"),
                origin: Some(Origin {
                    client: ClientId::from_bits(1),
                    user: Arc::from(user),
                }),
                key: Some(Arc::from(user)),
            })
        });
        Reply::History {
            channel: channel(),
            publications: publications.collect(),
            position: Position::new(Epoch::from_bits(1), 1000),
            more: false,
        }
    }

    #[test]
    fn an_answer_takes_what_it_may_and_not_much_less() {
        let escaped = "\u{1}".repeat(250);
        let replies = [
            presence(400, "ann"),
            presence(0, &escaped),
            history("ann"),
            history(&escaped),
        ];
        for reply in replies {
            let reply = reply.fit(BYTES_MAX);
            let (Reply::Presence { more, .. } | Reply::History { more, .. }) = &reply else {
                panic!("{reply:?}");
            };
            assert!(more);
            let mut out = Vec::new();
            encode_reply(WireFormat::Json, &reply, None, &mut out);
            assert!(out.len() <= BYTES_MAX, "{}", out.len());
            let mut packed = Vec::new();
            encode_reply(WireFormat::MessagePack, &reply, None, &mut packed);
            assert!(packed.len() <= BYTES_MAX, "{}", packed.len());
            assert!(out.len() > BYTES_MAX / 3, "{}", out.len());
        }
    }

    #[test]
    fn what_fits_stays_whole_and_the_first_always() {
        let whole = history("ann");
        assert_eq!(whole.clone().fit(1 << 20), whole);
        let Reply::Presence { members, .. } = presence(9000, "ann").fit(100) else {
            panic!("an answer of another kind");
        };
        assert_eq!(members.len(), 1);
    }
}
