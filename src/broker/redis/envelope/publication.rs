//! A publication's envelope in the one form in which this version packs it, and the script that publishes: fields in their
//! order, none that is not known. Anything else is not read here but by the general reader, which this must agree with.

use super::{Rest, VERSION, Wire};

/// How every publication begins, behind the number of fields: its version and its kind.
const HEAD: &[u8] = &[0xa1, b'v', VERSION, 0xa1, b'k', 0xa1, b'p'];

/// The marker of an empty map; that of a map of a few fields is so much more.
const MAP: u8 = 0x80;

/// Reads such an envelope; `None` for any other.
pub(super) fn read(bytes: &[u8]) -> Option<Wire<'_>> {
    let (marker, bytes) = bytes.split_first()?;
    let mut reader = Reader(bytes.strip_prefix(HEAD)?);
    // Beside those that are always there: version, kind, offset, rest, data.
    let mut fields = MAP + 5;
    let epoch = reader.field(b'e', &mut fields)?;
    reader.key(b'o')?;
    let offset = reader.unsigned()?;
    reader.key(b'm')?;
    let rest = reader.rest()?;
    reader.key(b'd')?;
    let data = Some(reader.text()?);
    let is_whole = *marker == fields && reader.0.is_empty();
    is_whole.then_some(Wire {
        version: VERSION,
        kind: "p",
        epoch,
        offset,
        rest,
        data,
        members: Vec::new(),
    })
}

/// What is not read yet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The key of a field: a text of one letter.
    fn key(&mut self, name: u8) -> Option<()> {
        match self.0 {
            [0xa1, letter, behind @ ..] if *letter == name => {
                self.0 = behind;
                Some(())
            }
            _ => None,
        }
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, behind) = self.0.split_first_chunk()?;
        self.0 = behind;
        Some(*array)
    }

    fn text(&mut self) -> Option<&'a str> {
        let [marker] = self.array()?;
        let length = match marker {
            0xa0..=0xbf => usize::from(marker & 0x1f),
            0xd9 => usize::from(u8::from_be_bytes(self.array()?)),
            0xda => usize::from(u16::from_be_bytes(self.array()?)),
            0xdb => usize::try_from(u32::from_be_bytes(self.array()?)).ok()?,
            _ => return None,
        };
        let (text, behind) = self.0.split_at_checked(length)?;
        self.0 = behind;
        std::str::from_utf8(text).ok()
    }

    fn unsigned(&mut self) -> Option<u64> {
        let [marker] = self.array()?;
        match marker {
            0..0x80 => Some(marker.into()),
            0xcc => self.array().map(u8::from_be_bytes).map(u64::from),
            0xcd => self.array().map(u16::from_be_bytes).map(u64::from),
            0xce => self.array().map(u32::from_be_bytes).map(u64::from),
            0xcf => self.array().map(u64::from_be_bytes),
            _ => None,
        }
    }

    /// A field that may be left out, and is counted where it is there.
    fn field(&mut self, name: u8, count: &mut u8) -> Option<Option<&'a str>> {
        if self.key(name).is_none() {
            return Some(None);
        }
        *count += 1;
        self.text().map(Some)
    }

    /// What stands beside the data: of a back end's publication usually nothing.
    fn rest(&mut self) -> Option<Rest<'a>> {
        let [marker] = self.array()?;
        let mut fields = MAP;
        let client = self.field(b'c', &mut fields)?;
        let rest = Rest {
            client: client.map(str::parse).transpose().ok()?,
            user: self.field(b'u', &mut fields)?,
            info: self.field(b'i', &mut fields)?,
            key: self.field(b'n', &mut fields)?,
        };
        (marker == fields).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::pack;
    use super::*;
    use crate::model::ClientId;

    /// Texts of all widths of their lengths.
    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof![".{0,40}", "[aä]{200,300}", "a{65530,65540}"]
    }

    prop_compose! {
        fn any_parts()(
            version in prop_oneof![9 => Just(VERSION), 1 => any::<u8>()],
            kind in prop_oneof![9 => Just("p"), 1 => Just("j"), 1 => Just("later")],
            epoch in prop::option::of(any_text()),
            offset in any::<u64>(),
            zeros in 0..64,
            rest in any_rest_parts(),
            data in prop::option::weighted(0.9, any_text()),
            members in prop_oneof![9 => Just(0usize), 1 => Just(2)],
        ) -> Parts {
            Parts { version, kind, epoch, offset: offset >> zeros, rest, data, members }
        }
    }

    #[derive(Debug)]
    struct Parts {
        version: u8,
        kind: &'static str,
        epoch: Option<String>,
        offset: u64,
        rest: RestParts,
        data: Option<String>,
        members: usize,
    }

    type RestParts = (Option<u128>, [Option<String>; 3]);

    fn any_rest_parts() -> impl Strategy<Value = RestParts> {
        let text = || prop::option::of(".{0,9}");
        (prop::option::of(any::<u128>()), [text(), text(), text()])
    }

    fn rest((client, [user, info, key]): &RestParts) -> Rest<'_> {
        Rest {
            client: client.map(ClientId::from_bits),
            user: user.as_deref(),
            info: info.as_deref(),
            key: key.as_deref(),
        }
    }

    impl Parts {
        fn wire(&self) -> Wire<'_> {
            Wire {
                version: self.version,
                kind: self.kind,
                epoch: self.epoch.as_deref(),
                offset: self.offset,
                rest: rest(&self.rest),
                data: self.data.as_deref(),
                members: (0..self.members).map(|_| rest(&self.rest)).collect(),
            }
        }

        /// Whether it is a publication as this version packs it.
        fn is_usual(&self) -> bool {
            let is_known = (self.version, self.kind) == (VERSION, "p");
            is_known && self.data.is_some() && self.members == 0
        }
    }

    fn agrees(bytes: &[u8]) -> Result<(), TestCaseError> {
        if let Some(wire) = read(bytes) {
            prop_assert_eq!(rmp_serde::from_slice(bytes).ok(), Some(wire));
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn reads_every_usual_publication_and_nothing_else(parts in any_parts()) {
            let bytes = pack(&parts.wire());
            prop_assert_eq!(read(&bytes), parts.is_usual().then(|| parts.wire()));
        }

        #[test]
        fn what_it_reads_of_spoilt_bytes_is_what_the_general_reader_reads(
            parts in any_parts(),
            at in any::<prop::sample::Index>(),
            byte: u8,
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = pack(&parts.wire()).to_vec();
            let at = at.index(bytes.len().min(80));
            agrees(&bytes[..cut.index(bytes.len())])?;
            bytes.insert(at, byte);
            agrees(&bytes)?;
            bytes.remove(at);
            bytes[at] = byte;
            agrees(&bytes)?;
        }
    }

    #[test]
    fn reads_what_the_script_publishes() {
        let bytes =
            b"\x86\xa1v\x01\xa1k\xa1p\xa1e\xa1E\xa1o\xcd\x01\x00\xa1m\x81\xa1n\xa1K\xa1d\xa4\"ab\"";
        let wire = read(bytes).expect("a publication");
        assert_eq!((wire.epoch, wire.offset), (Some("E"), 256));
        assert_eq!((wire.rest.key, wire.data), (Some("K"), Some("\"ab\"")));
        assert_eq!(rmp_serde::from_slice(bytes).ok(), Some(wire));
    }
}
