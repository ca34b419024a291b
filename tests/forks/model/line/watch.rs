//! The watch over both connections of a node, and their ends.

use std::collections::VecDeque;

use fanfare::redis::CallError;
use fanfare::redis::watch::{Compared, Comparison, Heard, Next, Patience, Role};

use super::{Ask, Commands, Line, Messages, SERVER, State, WATCH_INTERVAL, unanswered};
use crate::model::tasks::lock;

/// How a broken watch is told from a whole one: see [`super::super::Mutation`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WatchRules {
    pub(crate) ignores_id: bool,
    pub(crate) ignores_own_id: bool,
    pub(crate) ignores_difference: bool,
}

impl Line {
    /// Makes the connections that are missing, where a server answers, and looks at those that stand.
    pub(crate) fn watch(
        &self,
        target: Option<usize>,
        role: impl Fn(usize) -> Role,
        rules: WatchRules,
    ) {
        self.watch_commands(target, &role, rules);
        self.watch_messages(target, &role, rules);
    }

    fn watch_commands(
        &self,
        target: Option<usize>,
        role: &impl Fn(usize) -> Role,
        rules: WatchRules,
    ) {
        let (now, instant) = (self.clock.now(), self.clock.instant());
        let mut state = lock(&self.state);
        let id = match &mut state.commands {
            None => {
                let Some((server, Role::Master(id))) = target.map(|at| (at, role(at))) else {
                    return;
                };
                state.commands = Some(Commands {
                    server,
                    to: VecDeque::new(),
                    from: VecDeque::new(),
                    patience: Patience::new(instant),
                    look_at: now + WATCH_INTERVAL,
                });
                id
            }
            Some(commands) if now < commands.look_at => return,
            Some(commands) => {
                commands.look_at = now + WATCH_INTERVAL;
                match commands.patience.judge(role(commands.server), instant) {
                    Heard::Id(id) => id,
                    Heard::Nothing => return,
                    Heard::GiveUp => {
                        drop(state);
                        return self.cut_commands();
                    }
                }
            }
        };
        let changed = state.known[0].differs(id) && !rules.ignores_own_id;
        let listener = state.listener.clone();
        drop(state);
        if changed {
            self.note(|| "another id".to_owned());
        }
        if let Some(listener) = listener.filter(|_| changed) {
            listener.changed(false);
        }
    }

    fn watch_messages(
        &self,
        target: Option<usize>,
        role: &impl Fn(usize) -> Role,
        rules: WatchRules,
    ) {
        let (now, instant) = (self.clock.now(), self.clock.instant());
        let mut state = lock(&self.state);
        let Some(messages) = &mut state.messages else {
            let Some(server) = target else { return };
            let Role::Master(id) = role(server) else {
                return;
            };
            state.messages = Some(Messages::new(server, now, instant));
            let changed = state.known[1].differs(id) && !rules.ignores_id;
            let listener = state.listener.clone();
            drop(state);
            self.note(|| format!("messages of server {server}, changed {changed}"));
            if let Some(listener) = listener {
                listener.connected(SERVER);
                if changed {
                    listener.changed(false);
                }
            }
            return;
        };
        if now < messages.look_at {
            return;
        }
        messages.look_at = now + WATCH_INTERVAL;
        match messages.marks.next(messages.passed, instant) {
            Next::Send(mark) => {
                let last = messages.to.back().map(|(due, _)| *due);
                let due = now.max(last.unwrap_or(0));
                messages.to.push_back((due, Ask::Mark(mark)));
            }
            Next::Wait => {}
            Next::GiveUp => {
                drop(state);
                return self.cut_messages();
            }
        }
        let judged = messages.patience.judge(role(messages.server), instant);
        let own_server = messages.server;
        let own = match judged {
            Heard::Id(own) => own,
            Heard::Nothing => return,
            Heard::GiveUp => {
                drop(state);
                return self.cut_messages();
            }
        };
        if let Some(other) = state.other(&own, rules)
            && !agree(own.clone(), || role(own_server), || role(other))
        {
            drop(state);
            self.cut_commands();
            return self.cut_messages();
        }
        let changed = state.known[1].differs(own) && !rules.ignores_id;
        let listener = state.listener.clone();
        drop(state);
        if changed {
            self.note(|| "another id".to_owned());
        }
        if let Some(listener) = listener.filter(|_| changed) {
            listener.changed(true);
        }
    }

    /// The connection for commands ends.
    pub(crate) fn cut_commands(&self) {
        let mut state = lock(&self.state);
        let Some(commands) = state.commands.take() else {
            return;
        };
        state.generation += 1;
        drop(state);
        for call in commands.to.into_iter().chain(commands.from) {
            let answers = unanswered(call.commands.len());
            call.tell.map(|tell| tell.send(answers));
        }
    }

    /// The connection that brings messages ends.
    pub(crate) fn cut_messages(&self) {
        let mut state = lock(&self.state);
        let Some(messages) = state.messages.take() else {
            return;
        };
        state.generation += 1;
        let listener = state.listener.clone();
        drop(state);
        for (_, ask) in messages.to {
            if let Ask::Change(_, _, _, tell) = ask {
                let _ = tell.send(Err(CallError::Unanswered("lost".to_owned())));
            }
        }
        self.note(|| "messages lost".to_owned());
        if let Some(listener) = listener {
            listener.lost(SERVER);
        }
    }
}

impl State {
    /// Where the connection for commands leads, when it was told another id than this.
    fn other(&self, own: &str, rules: WatchRules) -> Option<usize> {
        let commands = self.commands.as_ref();
        let is_asked = !rules.ignores_difference && !self.known[0].is(own);
        commands.filter(|_| is_asked).map(|it| it.server)
    }
}

/// Whether two connections lead to the same data.
fn agree(own: String, ask_own: impl Fn() -> Role, ask_other: impl Fn() -> Role) -> bool {
    let mut comparison = Comparison::new(own);
    loop {
        let told = match comparison.handle_other(ask_other()) {
            Compared::AskAgain => comparison.handle_own(ask_own()),
            told => told,
        };
        match told {
            Compared::Agrees => return true,
            Compared::Differs => return false,
            Compared::AskAgain => {}
        }
    }
}
