//! Who is present: one write for a join or a leave, and one lease of the node for all its members.
//!
//! When a lease ends, another node takes the members away, and each leave is told once. Only Redis's clock counts. A node
//! that finds out that it was given up goes on under a new name with all its members, so that nobody who still cleans up
//! after the old name takes them away again. It does the same when Redis came back with other data: that may lack members
//! who are here, and have others who left, whom the end of the old name's lease takes away.
//!
//! What is to be said goes through one outbox. It says of each client what is true when its turn comes, so a join and a
//! leave that follow each other at once may not be told at all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::outbox::{Entry, Outbox, tell};
use super::{
    Answer, ChannelKey, ClientId, Command, Inner, LEASE, Member, broker_error, envelope, keys,
    lock, millis, scripts,
};

/// The most members of one command: a script must not hold up the server.
const MEMBERS_MAX: usize = 64;

/// How long a batch that was not confirmed waits to be said again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

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
        let join = Command::script(&scripts::JOIN, &[&members, &clients, &users, &keys.meta])
            .word(name.to_owned())
            .word(self.told_at(channel));
        joining.iter().fold(join, |join, member| {
            join.word(client_field(member.client))
                .word(envelope::pack_member(member))
                .word(member.user.to_string())
        })
    }

    /// Takes clients away: these, or all of a node when none is named.
    pub(super) fn leave_command(
        &self,
        channel: &ChannelKey,
        node: &str,
        leaving: &[ClientId],
    ) -> Command {
        let keys = self.keys.channel(channel);
        let [members, clients, users] = keys.presence();
        let leave = Command::script(&scripts::LEAVE, &[&members, &clients, &users, &keys.meta])
            .word(self.told_at(channel))
            .word(node.to_owned());
        leaving
            .iter()
            .fold(leave, |leave, client| leave.word(client_field(*client)))
    }

    /// Says of a channel that a node has members there, so that whoever cleans up after it knows, and that the node has a
    /// lease, so that somebody will.
    fn note_channel(&self, state: &State, channel: &ChannelKey) -> Command {
        let (leases, infos) = (self.keys.leases(), self.keys.infos());
        let channels = self.keys.channels_of(&state.name);
        Command::script(&scripts::NOTE, &[&leases, &channels, &infos])
            .word(state.name.clone())
            .number(millis(LEASE))
            .word(keys::tag(channel))
            .number(u64::from(state.is_announced))
    }

    /// Takes a new name, under which all members of this node are said again. Whoever cleans up after the old one takes
    /// away only those that were not said yet.
    pub(super) fn begin_anew(&self) {
        let mut state = lock(&self.presence.state);
        state.name = fresh_name();
        state.is_announced = false;
        let members = state
            .members
            .iter()
            .flat_map(|(channel, members)| members.keys().map(|client| (channel.clone(), *client)));
        self.presence.outbox.add_all(members);
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
            let (name, commands, said) = self.presence_commands(&batch);
            let answers = self.redis.call(commands).await;
            let mut failed = Vec::new();
            for (answer, clients) in answers.into_iter().zip(said) {
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
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    }

    /// What makes true in Redis what is true here, of each client of a batch; and of each command, whom it is about.
    /// Before them the name under which some are present then, if any are.
    fn presence_commands(
        &self,
        batch: &[Entry],
    ) -> (Option<String>, Vec<Command>, Vec<Vec<usize>>) {
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
        let (mut commands, mut said) = (Vec::new(), Vec::new());
        let is_anyone_joining = by_channel.values().any(|(joining, _)| !joining.is_empty());
        for (channel, (joining, leaving)) in by_channel {
            let members = state.members.get(channel);
            if !joining.is_empty() {
                commands.push(self.note_channel(&state, channel));
                // Without it nobody would clean up after them.
                said.push(joining.clone());
            }
            for some in joining.chunks(MEMBERS_MAX) {
                let joining: Vec<_> = some
                    .iter()
                    .filter_map(|at| members?.get(&batch[*at].0.1).cloned())
                    .collect();
                commands.push(self.join_command(&state.name, channel, &joining));
                said.push(some.to_vec());
            }
            for some in leaving.chunks(MEMBERS_MAX) {
                let leaving: Vec<_> = some.iter().map(|at| batch[*at].0.1).collect();
                commands.push(self.leave_command(channel, "", &leaving));
                said.push(some.to_vec());
            }
            if members.is_none() {
                let forget = Command::new("SREM").word(self.keys.channels_of(&state.name));
                commands.push(forget.word(keys::tag(channel)));
                said.push(Vec::new());
            }
        }
        let name = is_anyone_joining.then(|| state.name.clone());
        (name, commands, said)
    }
}
