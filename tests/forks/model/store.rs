//! What the scripts do in a server, in Rust: the keys of channels, and the answers. That it is the same as what the real
//! scripts do in a real server is tested (`scripts.rs`): both are asked the same, and must answer the same.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use fanfare::broker::redis::scripts;
use fanfare::model::{Epoch, Position};
use fanfare::redis::{CallError, Command, Value};

use super::truth::{Place, Truth};

/// The most forks that are remembered.
const FORKS_MAX: usize = 16;

/// A rule that is broken on purpose, to see that it is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// 1: the id of the server is not compared.
    Id,
    /// 2: the end of the old epoch is not remembered.
    NoFork,
    /// 2: it is remembered as being further on.
    LateFork,
    /// 2: the top is what the stream's last entry says.
    TopOfStream,
    /// 2: what draws epochs begins anew with the server.
    SameEpochs,
    /// 3: who is ahead of the present top is told that nothing is missing.
    Ahead,
    /// 4: a position above its fork is good.
    AboveFork,
    /// 4: it is not looked whether what follows is kept.
    Trimmed,
    /// 5: numbering begins anew when the stream is gone.
    Renumbered,
    /// 6: the first interest makes no meta.
    NoMeta,
}

#[derive(Debug, Clone)]
struct Meta {
    epoch: String,
    top: u64,
    replid: String,
    forks: Vec<(String, u64)>,
}

#[derive(Debug, Clone)]
struct Entry {
    offset: u64,
    data: Bytes,
    rest: Bytes,
}

/// The keys of a channel.
#[derive(Debug, Clone, Default)]
struct Channel {
    meta: Option<Meta>,
    stream: VecDeque<Entry>,
    position: Option<String>,
    once: BTreeMap<Bytes, (String, u64)>,
    /// Where the data ends, as the truth has it.
    head: Option<Place>,
}

/// What a server has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Data {
    channels: BTreeMap<String, Channel>,
}

/// What is sent to subscribers.
pub(crate) type Sent = (String, Bytes);

type Answer = Result<Value, CallError>;

/// How a server does what it is asked.
pub(crate) struct Store<'a> {
    pub(crate) data: &'a mut Data,
    pub(crate) replid: &'a str,
    pub(crate) broken: Option<Broken>,
    /// How many epochs were drawn since the server started, for [`Broken::SameEpochs`].
    pub(crate) drawn: &'a mut u64,
    pub(crate) truth: &'a mut Truth,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn base(key: &[u8]) -> String {
    let key = text(key);
    key.rsplit_once(':').map_or("", |(base, _)| base).to_owned()
}

fn word(text: &dyn ToString) -> Value {
    Value::from(text.to_string())
}

fn number(words: &[Bytes], at: usize) -> i64 {
    text(&words[at]).parse().expect("a number")
}

fn unknown() -> Answer {
    Err(CallError::Refused("ERR not in the model".to_owned()))
}

impl Data {
    fn channel(&mut self, key: &[u8]) -> &mut Channel {
        self.channels.entry(base(key)).or_default()
    }

    /// Loses the publications of all channels, but not their numbering.
    pub(crate) fn lose_streams(&mut self) {
        self.channels
            .values_mut()
            .for_each(|channel| channel.stream.clear());
    }

    /// Loses so many of the oldest publications of each channel.
    pub(crate) fn lose_oldest(&mut self, count: usize) {
        for channel in self.channels.values_mut() {
            let count = count.min(channel.stream.len());
            channel.stream.drain(..count);
        }
    }

    pub(crate) fn lose_metas(&mut self) {
        self.channels
            .values_mut()
            .for_each(|channel| channel.meta = None);
    }

    pub(crate) fn lose_positions(&mut self) {
        self.channels
            .values_mut()
            .for_each(|channel| channel.position = None);
    }

    /// Where the data of the channel ends.
    pub(crate) fn head(&self) -> Option<Place> {
        let channel = self.channels.values().next()?;
        channel.meta.as_ref()?;
        channel.head
    }

    /// Copies a key to another name, or takes it away when there is none.
    pub(crate) fn copy(&mut self, from: &str, to: &str) {
        let (from_base, what) = from.rsplit_once(':').expect("a key of a channel");
        let from = self.channels.get(from_base).cloned().unwrap_or_default();
        let to = self.channel(to.as_bytes());
        match what {
            "meta" => to.meta = from.meta,
            "stream" => to.stream = from.stream,
            "position" => to.position = from.position,
            other => panic!("{other}"),
        }
    }
}

impl Store<'_> {
    /// Does what a command says.
    pub(crate) fn execute(&mut self, command: &Command) -> (Answer, Option<Sent>) {
        let (keys, words) = (command.keys(), command.arguments());
        let (keys, words) = (&*keys, &*words);
        let Some(script) = command.called() else {
            return (self.plain(command.name(), words), None);
        };
        let is = |other| std::ptr::eq(script, other);
        if is(&scripts::PUBLISH) {
            return self.publish(keys, words);
        }
        let answer = if is(&scripts::ENSURE) {
            self.ensure(keys, words)
        } else if is(&scripts::READ) {
            Ok(self.read(keys, words))
        } else {
            unknown()
        };
        (answer, None)
    }

    fn plain(&mut self, name: &str, words: &[Bytes]) -> Answer {
        let position = |data: &mut Data, key: &Bytes| {
            let position = data.channel(key).position.clone();
            position.map_or(Value::Null, |text| word(&text))
        };
        Ok(match name {
            "MGET" => {
                let found = words.iter().map(|key| position(self.data, key));
                Value::Array(found.collect())
            }
            "GET" => position(self.data, &words[0]),
            "DEL" => {
                let channel = self.data.channel(&words[0]);
                let had = !channel.stream.is_empty();
                channel.stream.clear();
                Value::Integer(i64::from(had))
            }
            "PEXPIRE" => Value::Integer(1),
            // Of orders, of which nobody gives any.
            "XRANGE" => Value::Array(Vec::new()),
            _ => return unknown(),
        })
    }

    fn fresh(&mut self, epoch: &Bytes) -> String {
        *self.drawn += 1;
        match self.broken {
            Some(Broken::SameEpochs) => Epoch::from_bits(u128::from(*self.drawn)).to_string(),
            _ => text(epoch),
        }
    }

    fn ensure(&mut self, keys: &[Bytes], words: &[Bytes]) -> Answer {
        let channel = self.data.channel(&keys[0]);
        if let Some(meta) = &channel.meta {
            let answer = vec![word(&meta.epoch), word(&meta.top)];
            return Ok(Value::Array(answer));
        }
        let epoch = self.fresh(&words[0]);
        let head = self.truth.begin();
        self.truth
            .begin_epoch(Epoch::parse(&epoch).expect("an epoch"), head);
        let answer = Value::Array(vec![word(&epoch), word(&0)]);
        if self.broken == Some(Broken::NoMeta) {
            return Ok(answer);
        }
        let channel = self.data.channel(&keys[0]);
        channel.head = Some(head);
        channel.stream.clear();
        channel.position = Some(format!("{epoch}:0"));
        channel.meta = Some(Meta {
            epoch,
            top: 0,
            replid: self.replid.to_owned(),
            forks: Vec::new(),
        });
        Ok(answer)
    }

    fn publish(&mut self, keys: &[Bytes], words: &[Bytes]) -> (Answer, Option<Sent>) {
        let policy = text(&words[1]);
        let policy: Vec<usize> = policy
            .split(':')
            .map(|of| of.parse().expect("a number"))
            .collect();
        let [size, _ttl, _ttl_of_meta, remembered] = policy[..] else {
            panic!("{policy:?}");
        };
        let idempotent = remembered > 0;
        if idempotent && let Some((epoch, offset)) = self.data.channel(&keys[0]).once.get(&keys[3])
        {
            return (Ok(word(&format!("{epoch}:{offset}:1"))), None);
        }
        self.begin_epoch_for(&keys[0], &words[0]);
        let broken = self.broken;
        let channel = self.data.channel(&keys[0]);
        let meta = channel.meta.as_mut().expect("it was made");
        if broken == Some(Broken::TopOfStream) {
            meta.top = channel.stream.back().map_or(0, |last| last.offset);
        }
        meta.top += 1;
        let (epoch, offset) = (meta.epoch.clone(), meta.top);
        if channel
            .stream
            .back()
            .is_some_and(|last| last.offset >= offset)
        {
            let why =
                "ERR The ID specified in XADD is equal or smaller than the target stream top item";
            return (Err(CallError::Refused(why.to_owned())), None);
        }
        let (rest, data) = (words[2].clone(), words[3].clone());
        channel.stream.push_back(Entry {
            offset,
            data: data.clone(),
            rest: rest.clone(),
        });
        while channel.stream.len() > size {
            channel.stream.pop_front();
        }
        channel.position = Some(format!("{epoch}:{offset}"));
        if idempotent {
            channel
                .once
                .insert(keys[3].clone(), (epoch.clone(), offset));
        }
        let content = text(&data).parse().expect("a number");
        let position = Position::new(Epoch::parse(&epoch).expect("an epoch"), offset);
        let head = channel.head.expect("a head");
        channel.head = Some(self.truth.publish(head, position, content));
        let name = format!("{}:envelopes", base(&keys[0]));
        let sent = (name, envelope(&epoch, offset, &rest, &data));
        (Ok(word(&format!("{epoch}:{offset}"))), Some(sent))
    }

    /// Makes the meta, or begins a new epoch where another server wrote last.
    fn begin_epoch_for(&mut self, key: &Bytes, fresh: &Bytes) {
        let (replid, broken) = (self.replid.to_owned(), self.broken);
        let channel = self.data.channel(key);
        let has_stream = !channel.stream.is_empty();
        let Some(meta) = &mut channel.meta else {
            let epoch = self.fresh(fresh);
            let head = self.truth.begin();
            self.truth
                .begin_epoch(Epoch::parse(&epoch).expect("an epoch"), head);
            let channel = self.data.channel(key);
            channel.stream.clear();
            channel.head = Some(head);
            channel.meta = Some(Meta {
                epoch,
                top: 0,
                replid,
                forks: Vec::new(),
            });
            return;
        };
        if broken == Some(Broken::Renumbered) && !has_stream {
            meta.top = 0;
        }
        let is_other = meta.replid != replid && broken != Some(Broken::Id);
        if !is_other || replid.is_empty() {
            return;
        }
        let first = channel.stream.front();
        let first = first.map_or(meta.top + 1, |first| first.offset);
        meta.forks.retain(|(_, at)| at + 1 >= first);
        match broken {
            Some(Broken::NoFork) => {}
            Some(Broken::LateFork) => meta.forks.push((meta.epoch.clone(), meta.top + 3)),
            _ => meta.forks.push((meta.epoch.clone(), meta.top)),
        }
        let surplus = meta.forks.len().saturating_sub(FORKS_MAX);
        meta.forks.drain(..surplus);
        let epoch = self.fresh(fresh);
        let channel = self.data.channel(key);
        let head = channel.head.expect("a head");
        let meta = channel.meta.as_mut().expect("it is there");
        (meta.epoch, meta.replid) = (epoch.clone(), replid);
        self.truth
            .begin_epoch(Epoch::parse(&epoch).expect("an epoch"), head);
    }

    fn read(&mut self, keys: &[Bytes], words: &[Bytes]) -> Value {
        let broken = self.broken;
        let channel = self.data.channel(&keys[0]);
        let Some(meta) = &channel.meta else {
            return Value::Null;
        };
        let (top, epoch) = (meta.top.cast_signed(), text(&words[4]));
        let mut since = number(words, 0);
        let is_present = meta.epoch == epoch;
        let fork = meta.forks.iter().find(|(of, _)| *of == epoch);
        let common = match is_present {
            true => Some(top),
            false => fork.map(|(_, at)| at.cast_signed()),
        };
        let may_pass = match is_present {
            true => broken == Some(Broken::Ahead),
            false => broken == Some(Broken::AboveFork),
        };
        let is_known = common.is_some_and(|common| since <= common || may_pass);
        let first = channel.stream.front();
        let first = first.map_or(top + 1, |first| first.offset.cast_signed());
        let first = first.max(top - number(words, 3) + 1);
        let fork = common.filter(|common| since > *common);
        let fork = fork.filter(|fork| *fork == top || first <= fork + 1);
        let is_kept = since == top || first <= since + 1 || broken == Some(Broken::Trimmed);
        let stands = is_known && (is_kept || may_pass);
        if !is_known && !is_present {
            since = 0;
        }
        let after = since.max(first - 1);
        let (most, mut bytes) = (number(words, 1), number(words, 2));
        let mut entries = Vec::new();
        for entry in &channel.stream {
            if entry.offset.cast_signed() <= after || after >= top {
                continue;
            }
            bytes -= i64::try_from(entry.data.len()).expect("small");
            if entries.len().cast_signed() as i64 >= most || (bytes < 0 && !entries.is_empty()) {
                break;
            }
            entries.push(Value::Array(vec![
                word(&entry.offset),
                Value::Bytes(entry.data.clone()),
                Value::Bytes(entry.rest.clone()),
            ]));
        }
        Value::Array(vec![
            word(&meta.epoch),
            word(&meta.top),
            Value::Integer(i64::from(stands)),
            Value::Array(entries),
            word(&fork.unwrap_or(-1)),
        ])
    }
}

/// What the script publishes: a MessagePack map of six.
fn envelope(epoch: &str, offset: u64, rest: &[u8], data: &[u8]) -> Bytes {
    let mut bytes = vec![0x86];
    let text = |bytes: &mut Vec<u8>, text: &str| {
        rmp::encode::write_str(bytes, text).expect("memory");
    };
    text(&mut bytes, "v");
    rmp::encode::write_uint(&mut bytes, 1).expect("memory");
    for word in ["k", "p", "e", epoch, "o"] {
        text(&mut bytes, word);
    }
    rmp::encode::write_uint(&mut bytes, offset).expect("memory");
    text(&mut bytes, "m");
    bytes.extend_from_slice(rest);
    text(&mut bytes, "d");
    text(&mut bytes, std::str::from_utf8(data).expect("JSON"));
    bytes.into()
}
