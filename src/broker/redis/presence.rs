//! Who is present: one write for a join or a leave, and one lease of the node for all its members.
//!
//! When a lease ends, another node takes the members away, and each leave is told once. Only Redis's clock counts. A node
//! that finds out that it was given up goes on under a new name with all its members, so that nobody who still cleans up
//! after the old name takes them away again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::{
    Answer, BrokerError, CallError, ChannelKey, ClientId, Command, Inner, LEASE, Member,
    broker_error, envelope, keys, lock, millis, scripts,
};

/// The most joins and leaves that are said again at a time.
const UNSAID_PART: usize = 4096;

/// The members of this node, by channel.
type Members = HashMap<ChannelKey, HashMap<ClientId, Arc<Member>>>;

/// What this node knows of itself.
#[derive(Debug, Default)]
pub(super) struct Local {
    state: Mutex<State>,
    /// Joins and leaves that Redis did not confirm; they are told when it is back.
    unsaid: Mutex<Vec<(ChannelKey, ClientId)>>,
}

#[derive(Debug)]
struct State {
    /// This life of the node, or the part of it since its lease was lost: 32 hexadecimal digits.
    name: String,
    /// Whether that name was announced, so that its lease must be there.
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

    fn join_command(&self, name: &str, channel: &ChannelKey, member: &Member) -> Command {
        let keys = self.keys.channel(channel);
        let [members, clients, users] = keys.presence();
        Command::script(&scripts::JOIN, &[&members, &clients, &users, &keys.meta])
            .word(client_field(member.client))
            .word(name.to_owned())
            .word(envelope::pack_member(member))
            .word(member.user.to_string())
            .word(self.told_at(channel))
    }

    /// Takes a client away, or all of a node.
    pub(super) fn leave_command(
        &self,
        channel: &ChannelKey,
        node: &str,
        client: Option<ClientId>,
    ) -> Command {
        let keys = self.keys.channel(channel);
        let [members, clients, users] = keys.presence();
        let leave = Command::script(&scripts::LEAVE, &[&members, &clients, &users, &keys.meta])
            .word(self.told_at(channel))
            .word(node.to_owned());
        match client {
            Some(client) => leave.word(client_field(client)),
            None => leave,
        }
    }

    /// Says of a channel that a node has members there, so that whoever cleans up after it knows, and that the node has a
    /// lease, so that somebody will.
    fn note_channel(&self, name: &str, channel: &ChannelKey) -> Command {
        let channels = self.keys.channels_of(name);
        Command::script(&scripts::NOTE, &[&self.keys.leases(), &channels])
            .word(name.to_owned())
            .number(millis(LEASE))
            .word(keys::tag(channel))
    }

    /// Everything that makes the members of this node present again, under a new name. Answers the old one.
    pub(super) fn begin_anew(&self) -> (String, Vec<Command>) {
        let mut state = lock(&self.presence.state);
        let old = std::mem::replace(&mut state.name, fresh_name());
        state.is_announced = false;
        let mut commands = Vec::new();
        for (channel, members) in &state.members {
            commands.push(self.note_channel(&state.name, channel));
            let members = members.values();
            commands.extend(members.map(|member| self.join_command(&state.name, channel, member)));
        }
        (old, commands)
    }

    /// Nobody knows which members of this node are present: each is said again.
    pub(super) fn note_all_unsaid(&self) {
        let state = lock(&self.presence.state);
        let members = state
            .members
            .iter()
            .flat_map(|(channel, members)| members.keys().map(|client| (channel.clone(), *client)));
        lock(&self.presence.unsaid).extend(members);
    }

    /// Takes all members of this node away; its name is to be forgotten with them.
    pub(super) fn leave_all(&self) -> (String, Vec<Command>) {
        let mut state = lock(&self.presence.state);
        let members = std::mem::take(&mut state.members);
        let channels = members.keys();
        let commands = channels.map(|channel| self.leave_command(channel, &state.name, None));
        (state.name.clone(), commands.collect())
    }

    /// A connection of this node is present.
    pub(super) fn enter(
        self: &Arc<Self>,
        channel: &ChannelKey,
        member: Arc<Member>,
    ) -> Answer<'static, ()> {
        if !self.namespaces.of(channel).presence {
            return Box::pin(std::future::ready(Ok(())));
        }
        let client = member.client;
        // Under the lock, so that joins and leaves of one channel leave in the order in which they are noted.
        let mut state = lock(&self.presence.state);
        let State { name, members, .. } = &mut *state;
        let of_channel = members.entry(channel.clone()).or_default();
        let mut commands = Vec::with_capacity(2);
        if of_channel.is_empty() {
            commands.push(self.note_channel(name, channel));
        }
        commands.push(self.join_command(name, channel, &member));
        of_channel.insert(client, member);
        self.say(channel, client, commands)
    }

    /// It is no longer present.
    pub(super) fn exit(
        self: &Arc<Self>,
        channel: &ChannelKey,
        client: ClientId,
    ) -> Answer<'static, ()> {
        if !self.namespaces.of(channel).presence {
            return Box::pin(std::future::ready(Ok(())));
        }
        let mut state = lock(&self.presence.state);
        let State { name, members, .. } = &mut *state;
        let mut commands = Vec::with_capacity(2);
        if let Some(of_channel) = members.get_mut(channel) {
            of_channel.remove(&client);
            if of_channel.is_empty() {
                members.remove(channel);
                let forget = Command::new("SREM").word(self.keys.channels_of(name));
                commands.push(forget.word(keys::tag(channel)));
            }
        }
        commands.push(self.leave_command(channel, "", Some(client)));
        self.say(channel, client, commands)
    }

    /// Sends a join or a leave, the last of these; one that is not confirmed is noted. It goes on without being awaited:
    /// it must not be forgotten because nobody waits for its answer.
    fn say(
        self: &Arc<Self>,
        channel: &ChannelKey,
        client: ClientId,
        commands: Vec<Command>,
    ) -> Answer<'static, ()> {
        let answers = self.redis.call(commands);
        let (this, channel) = (self.clone(), channel.clone());
        let task = self.redis.runtime().spawn(async move {
            let answers: Result<Vec<_>, CallError> = answers.await.into_iter().collect();
            answers.map(drop).map_err(|error| {
                lock(&this.presence.unsaid).push((channel, client));
                broker_error(error)
            })
        });
        Box::pin(async move { task.await.unwrap_or(Err(BrokerError::Unavailable)) })
    }

    /// Says what could not be said: of each client what is true now.
    pub(super) async fn say_unsaid(&self) {
        let unsaid: Vec<_> = {
            let mut unsaid = lock(&self.presence.unsaid);
            let count = unsaid.len().min(UNSAID_PART);
            unsaid.drain(..count).collect()
        };
        if unsaid.is_empty() {
            return;
        }
        let answers = {
            let state = lock(&self.presence.state);
            let commands = unsaid.iter().flat_map(|(channel, client)| {
                let of_channel = state.members.get(channel);
                match of_channel.and_then(|members| members.get(client)) {
                    Some(member) => [
                        self.note_channel(&state.name, channel),
                        self.join_command(&state.name, channel, member),
                    ],
                    None => {
                        let leave = self.leave_command(channel, "", Some(*client));
                        [leave.clone(), leave]
                    }
                }
            });
            self.redis.call(commands.collect())
        };
        let answers = answers.await;
        let failed = unsaid
            .into_iter()
            .zip(answers.chunks(2))
            .filter(|(_, answers)| answers.iter().any(Result::is_err));
        lock(&self.presence.unsaid).extend(failed.map(|(said, _)| said));
    }
}
