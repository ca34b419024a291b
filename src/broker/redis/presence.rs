//! Who is present: one write for a join or a leave, and one lease of the node for all its members.
//!
//! When a lease ends, another node takes the members away, and each leave is told once. Only Redis's clock counts. A node
//! that finds out that it was given up goes on under a new name with all its members, so that nobody who still cleans up
//! after the old name takes them away again. It does the same when Redis came back with other data: that may lack members
//! who are here, and have others who left, whom the end of the old name's lease takes away.
//!
//! What is to be said goes through one outbox. It says of each client what is true when its turn comes, so a join and a
//! leave that follow each other at once may not be told at all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;

use super::outbox::{Entry, Outbox, tell};
use super::{
    Answer, CallError, ChannelKey, ClientId, Command, Inner, LEASE, Member, Value, broker_error,
    envelope, give_back, keys, lock, millis, scripts,
};

/// The most members of one command: a script must not hold up the server.
const MEMBERS_MAX: usize = 64;

/// How many members of a channel are looked at in one step, for those of a node that is no more.
const LOOKED_AT: u64 = 1000;

/// How long a batch that was not confirmed waits to be said again.
pub(super) const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// The members of this node, by channel.
type Members = HashMap<ChannelKey, HashMap<ClientId, Arc<Member>>>;

/// What this node knows of itself.
#[derive(Debug, Default)]
pub(super) struct Local {
    state: Mutex<State>,
    outbox: Outbox,
    /// Whether Redis may hold other members of this node than those that it was told of.
    is_doubtful: AtomicBool,
}

#[derive(Debug)]
struct State {
    /// This life of the node, or the part of it since its lease was lost: 32 hexadecimal digits.
    name: String,
    /// Whether that name was announced, or somebody is present under it, so that its lease must be there.
    is_announced: bool,
    members: Members,
}

impl Default for State {
    fn default() -> Self {
        Self {
            name: fresh_name(),
            is_announced: false,
            members: Members::default(),
        }
    }
}

fn fresh_name() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn client_field(client: ClientId) -> String {
    format!("{:032x}", client.bits())
}

impl Local {
    /// The name of the moment, and whether it was announced.
    pub(super) fn name(&self) -> (String, bool) {
        let state = lock(&self.state);
        (state.name.clone(), state.is_announced)
    }

    /// Gives back the room of members, when there were many more.
    pub(super) fn give_back(&self) {
        give_back(&mut lock(&self.state).members);
        self.outbox.give_back();
    }

    /// The data may be another than what this node wrote.
    pub(super) fn doubt(&self) {
        self.is_doubtful.store(true, Ordering::Relaxed);
    }

    /// Whether that was said since this was asked last.
    pub(super) fn take_doubt(&self) -> bool {
        self.is_doubtful.swap(false, Ordering::Relaxed)
    }

    /// The name has a lease now.
    pub(super) fn announced(&self, name: &str) {
        let mut state = lock(&self.state);
        state.is_announced |= state.name == name;
    }
}

/// A command, and which clients of a batch it is about.
type About = (Command, Vec<usize>);

/// What is to be said of a batch of clients.
struct Batch {
    /// The name under which some are present then, if any are.
    name: Option<String>,
    /// In which channels there is somebody to clean up after.
    notes: Vec<About>,
    /// Who is there, and who is not any more.
    said: Vec<About>,
}

impl Inner {
    /// Where joins and leaves are told; nothing where the namespace does not want it.
    fn told_at(&self, channel: &ChannelKey) -> String {
        match self.namespaces.of(channel).join_leave {
            true => self.keys.envelopes(channel),
            false => String::new(),
        }
    }

    fn join_command(&self, name: &str, channel: &ChannelKey, joining: &[Arc<Member>]) -> Command {
        let keys = self.keys.channel(channel);
        let [members, clients, users] = keys.presence();
        let join = Command::script(
            &scripts::JOIN,
            &[members.as_str(), &clients, &users, keys.meta()],
        )
        .word(name)
        .word(self.told_at(channel));
        joining.iter().fold(join, |join, member| {
            join.word(client_field(member.client))
                .word(envelope::pack_member(member))
                .word(member.user.to_string())
        })
    }

    fn leave_command(&self, channel: &ChannelKey, leaving: &[ClientId]) -> Command {
        let keys = self.keys.channel(channel);
        let [members, clients, users] = keys.presence();
        let leave = Command::script(
            &scripts::LEAVE,
            &[members.as_str(), &clients, &users, keys.meta()],
        )
        .word(self.told_at(channel));
        leaving
            .iter()
            .fold(leave, |leave, client| leave.word(client_field(*client)))
    }

    /// Takes away those of a node among some of the members, and answers the cursor behind them.
    pub(super) fn leave_node_command(
        &self,
        channel: &ChannelKey,
        node: &str,
        cursor: &str,
    ) -> Command {
        let keys = self.keys.channel(channel);
        let [members, clients, users] = keys.presence();
        let keys = [members.as_str(), &clients, &users, keys.meta()];
        Command::script(&scripts::LEAVE_NODE, &keys)
            .word(self.told_at(channel))
            .word(node)
            .word(cursor)
            .number(LOOKED_AT)
    }

    /// Says of a channel that a node has members there, so that whoever cleans up after it knows, and that the node has a
    /// lease, so that somebody will.
    fn note_channel(&self, state: &State, channel: &ChannelKey) -> Command {
        let channels = self.keys.channels_of(&state.name);
        self.note(&state.name, state.is_announced, &channels)
            .word(keys::tag(channel))
    }

    /// The same of channels whose tags are to be added, in a set of theirs.
    pub(super) fn note(&self, name: &str, is_announced: bool, set: &Bytes) -> Command {
        let (leases, infos) = (self.keys.leases(), self.keys.infos());
        Command::script(&scripts::NOTE, &[&leases, set, &infos])
            .word(name)
            .number(millis(LEASE))
            .number(u64::from(is_announced))
    }

    /// Takes a new name, under which all members of this node are said again. Whoever cleans up after the old one takes
    /// away only those that were not said yet. `is_given_up`: others have cleaned up, or are about to.
    pub(super) fn begin_anew(&self, is_given_up: bool) {
        {
            let mut state = lock(&self.presence.state);
            state.name = fresh_name();
            state.is_announced = false;
            let members = state.members.iter().flat_map(|(channel, members)| {
                members.keys().map(|client| (channel.clone(), *client))
            });
            self.presence.outbox.add_all(members);
        }
        self.occupancy.say_again(is_given_up);
    }

    /// Nobody is present here any more. Answers the name under which Redis is to take them away.
    pub(super) fn leave_all(&self) -> String {
        let mut state = lock(&self.presence.state);
        state.members.clear();
        state.name.clone()
    }

    /// A connection of this node is present.
    pub(super) fn enter(&self, channel: &ChannelKey, member: Arc<Member>) -> Answer<'static, ()> {
        if !self.namespaces.of(channel).presence {
            return Box::pin(std::future::ready(Ok(())));
        }
        let client = member.client;
        let mut state = lock(&self.presence.state);
        let of_channel = state.members.entry(channel.clone()).or_default();
        of_channel.insert(client, member);
        self.presence.outbox.add((channel.clone(), client))
    }

    /// It is no longer present.
    pub(super) fn exit(&self, channel: &ChannelKey, client: ClientId) -> Answer<'static, ()> {
        if !self.namespaces.of(channel).presence {
            return Box::pin(std::future::ready(Ok(())));
        }
        let mut state = lock(&self.presence.state);
        if let Some(of_channel) = state.members.get_mut(channel) {
            of_channel.remove(&client);
            if of_channel.is_empty() {
                state.members.remove(channel);
            }
        }
        self.presence.outbox.add((channel.clone(), client))
    }

    /// Says what is to be said, one batch after the other, for as long as the runtime lives. One at a time: when Redis is
    /// slow the batches grow, not the backlog in it, and whatever else is asked waits for one batch at most.
    pub(super) async fn say_presence(self: Arc<Self>) {
        loop {
            let mut batch = self.presence.outbox.next().await;
            let commands = self.presence_commands(&batch);
            let name = commands.name.clone();
            let mut failed = Vec::new();
            for (answer, clients) in self.say(commands).await {
                let answer = answer.map(drop).map_err(broker_error);
                for at in clients {
                    tell(&mut batch[at].1, answer);
                    if answer.is_err() {
                        failed.push(batch[at].0.clone());
                    }
                }
            }
            if failed.is_empty() {
                // From now on there is something to lose with the lease.
                if let Some(name) = name {
                    self.presence.announced(&name);
                }
            } else {
                self.presence.outbox.add_all(failed.into_iter());
                self.redis.pause(AGAIN_AFTER).await;
            }
        }
    }

    /// Sends a batch. On a Cluster first that there is something to clean up, which another server has to know: otherwise a
    /// node that dies in between would leave members behind of whom nobody knows.
    async fn say(&self, batch: Batch) -> Vec<(Result<Value, CallError>, Vec<usize>)> {
        let Batch {
            mut notes, said, ..
        } = batch;
        let parts = match self.redis.is_cluster() {
            true => vec![notes, said],
            false => {
                notes.extend(said);
                vec![notes]
            }
        };
        let mut told = Vec::new();
        for part in parts {
            let (commands, about): (Vec<_>, Vec<_>) = part.into_iter().unzip();
            let answers = self.redis.call(commands).await;
            told.extend(answers.into_iter().zip(about));
        }
        told
    }

    /// What makes true in Redis what is true here, of each client of a batch.
    fn presence_commands(&self, batch: &[Entry]) -> Batch {
        let state = lock(&self.presence.state);
        let mut by_channel: HashMap<&ChannelKey, (Vec<usize>, Vec<usize>)> = HashMap::new();
        for (at, ((channel, client), _)) in batch.iter().enumerate() {
            let (joining, leaving) = by_channel.entry(channel).or_default();
            let members = state.members.get(channel);
            match members.is_some_and(|members| members.contains_key(client)) {
                true => joining.push(at),
                false => leaving.push(at),
            }
        }
        let is_anyone_joining = by_channel.values().any(|(joining, _)| !joining.is_empty());
        let (mut notes, mut said) = (Vec::new(), Vec::new());
        for (channel, (joining, leaving)) in by_channel {
            let members = state.members.get(channel);
            if !joining.is_empty() {
                // Without it nobody would clean up after them.
                notes.push((self.note_channel(&state, channel), joining.clone()));
            }
            for some in joining.chunks(MEMBERS_MAX) {
                let joining: Vec<_> = some
                    .iter()
                    .filter_map(|at| members?.get(&batch[*at].0.1).cloned())
                    .collect();
                let join = self.join_command(&state.name, channel, &joining);
                said.push((join, some.to_vec()));
            }
            for some in leaving.chunks(MEMBERS_MAX) {
                let leaving: Vec<_> = some.iter().map(|at| batch[*at].0.1).collect();
                let leave = self.leave_command(channel, &leaving);
                said.push((leave, some.to_vec()));
            }
            if members.is_none() {
                let forget = Command::new("SREM").word(self.keys.channels_of(&state.name));
                said.push((forget.word(keys::tag(channel)), Vec::new()));
            }
        }
        Batch {
            name: is_anyone_joining.then(|| state.name.clone()),
            notes,
            said,
        }
    }
}
