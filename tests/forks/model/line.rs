//! A node's two connections to a server of the model: what is on its way in each direction, in order, and the watch over
//! both, by the same rules as a node's (`redis::watch`).

mod watch;

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fanfare::redis::watch::{Known, Marks, Patience};
use fanfare::redis::{
    Borrowing, CallError, Command, Connections, Listener, Pending, ServerId, StartError, Value,
};
use tokio::sync::oneshot;
pub(crate) use watch::WatchRules;

use super::store::Sent;
use super::tasks::{Clock, Tasks, lock};
use crate::random::Random;

/// The one server that a node knows of: whatever answers at its address.
const SERVER: ServerId = ServerId::new(1);

/// How long a command may take, in milliseconds.
const COMMAND_TIMEOUT: u64 = 900;

/// Between two looks at a connection, in milliseconds.
const WATCH_INTERVAL: u64 = 2000;

/// Marks of the watch begin here.
const OWN_MARKS: u64 = 1 << 62;

type Answers = Vec<Result<Value, CallError>>;

/// Commands on their way to a server, then their answers on the way back.
pub(crate) struct Call {
    due: u64,
    asked_at: u64,
    pub(crate) commands: Vec<Command>,
    answers: Answers,
    tell: Option<oneshot::Sender<Answers>>,
}

/// What is asked of a connection that brings messages.
enum Ask {
    Change(
        Vec<String>,
        Vec<String>,
        u64,
        oneshot::Sender<Result<(), CallError>>,
    ),
    Mark(u64),
}

enum Said {
    Message(Sent),
    Mark(u64),
}

/// The connection for commands.
struct Commands {
    server: usize,
    to: VecDeque<Call>,
    from: VecDeque<Call>,
    patience: Patience,
    look_at: u64,
}

/// The connection that brings messages.
struct Messages {
    server: usize,
    to: VecDeque<(u64, Ask)>,
    from: VecDeque<(u64, Said)>,
    wanted: BTreeSet<String>,
    passed: u64,
    marks: Marks,
    patience: Patience,
    look_at: u64,
}

#[derive(Default)]
struct State {
    listener: Option<Arc<dyn Listener>>,
    generation: u64,
    commands: Option<Commands>,
    messages: Option<Messages>,
    known: [Known; 2],
    delay: u64,
    /// A last due time, so that what is called later comes later.
    random: u64,
}

/// A node's connections.
pub(crate) struct Line {
    name: String,
    pub(crate) tasks: Arc<Tasks>,
    clock: Arc<Clock>,
    state: Mutex<State>,
}

/// What is done to messages on their way.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Treatment {
    pub(crate) loss: u64,
    pub(crate) repetition: u64,
}

impl Line {
    pub(crate) fn new(name: String, clock: Arc<Clock>, delay: u64, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            name,
            tasks: Tasks::new(clock.clone()),
            clock,
            state: Mutex::new(State {
                delay,
                random: seed,
                ..State::default()
            }),
        })
    }

    /// When something that is sent now comes, behind what was sent before.
    fn due(&self, state: &mut State, last: Option<u64>) -> u64 {
        // A generator of its own: the model's is busy while a node calls.
        state.random = state
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let delay = (state.random >> 33) % (state.delay + 1);
        (self.clock.now() + delay).max(last.unwrap_or(0))
    }

    /// Writes down what happens here.
    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        self.clock.note(|| format!("    {}: {}", self.name, what()));
    }

    pub(crate) fn set_delay(&self, delay: u64) {
        lock(&self.state).delay = delay;
    }

    pub(crate) fn servers_of_connections(&self) -> (Option<usize>, Option<usize>) {
        let state = lock(&self.state);
        let commands = state.commands.as_ref().map(|it| it.server);
        (commands, state.messages.as_ref().map(|it| it.server))
    }

    // --- the server's end ---

    /// The next commands that a server has by now.
    pub(crate) fn next_call(&self, server: usize) -> Option<Call> {
        let (now, mut state) = (self.clock.now(), lock(&self.state));
        let commands = state.commands.as_mut().filter(|it| it.server == server)?;
        let is_due = commands.to.front().is_some_and(|call| call.due <= now);
        is_due.then(|| commands.to.pop_front()).flatten()
    }

    /// The server did what it was asked.
    pub(crate) fn answer(&self, mut call: Call, answers: Answers) {
        let mut state = lock(&self.state);
        let last = state.commands.as_ref();
        let last = last.and_then(|it| it.from.back()).map(|call| call.due);
        call.due = self.due(&mut state, last);
        call.answers = answers;
        if let Some(commands) = &mut state.commands {
            commands.from.push_back(call);
        }
    }

    /// Lets a server take what it is asked of its subscribers' connections.
    pub(crate) fn serve_messages(&self, server: usize) {
        let now = self.clock.now();
        loop {
            let mut state = lock(&self.state);
            let Some(messages) = state.messages.as_mut().filter(|it| it.server == server) else {
                return;
            };
            if messages.to.front().is_none_or(|(due, _)| *due > now) {
                return;
            }
            let Some((_, ask)) = messages.to.pop_front() else {
                return;
            };
            let mark = match ask {
                Ask::Mark(mark) => mark,
                Ask::Change(added, removed, mark, tell) => {
                    messages.wanted.retain(|name| !removed.contains(name));
                    messages.wanted.extend(added);
                    let _ = tell.send(Ok(()));
                    mark
                }
            };
            self.say(&mut state, Said::Mark(mark));
        }
    }

    fn say(&self, state: &mut State, said: Said) {
        let last = state.messages.as_ref();
        let last = last.and_then(|it| it.from.back()).map(|(due, _)| *due);
        let due = self.due(state, last);
        if let Some(messages) = &mut state.messages {
            messages.from.push_back((due, said));
        }
    }

    /// A server publishes. Answers whether it was lost on the way.
    pub(crate) fn publish(
        &self,
        server: usize,
        sent: &Sent,
        treatment: Treatment,
        random: &mut Random,
    ) -> bool {
        let mut state = lock(&self.state);
        let messages = state.messages.as_ref();
        if messages.is_none_or(|it| it.server != server || !it.wanted.contains(&sent.0)) {
            return false;
        }
        if random.chance(treatment.loss) {
            return true;
        }
        for _ in 0..=u64::from(random.chance(treatment.repetition)) {
            self.say(&mut state, Said::Message(sent.clone()));
        }
        false
    }

    // --- the node's end ---

    /// Hands over what has come, and gives up what takes too long.
    pub(crate) fn hand_over(&self) {
        let now = self.clock.now();
        let mut told = Vec::new();
        let mut state = lock(&self.state);
        if let Some(commands) = &mut state.commands {
            while commands.from.front().is_some_and(|call| call.due <= now) {
                let call = commands.from.pop_front();
                told.extend(call.and_then(|call| Some((call.tell?, call.answers))));
            }
            let waiting = commands.to.iter_mut().chain(&mut commands.from);
            for call in waiting.filter(|call| now - call.asked_at > COMMAND_TIMEOUT) {
                let answers = unanswered(call.commands.len());
                told.extend(call.tell.take().map(|tell| (tell, answers)));
            }
        }
        drop(state);
        for (tell, answers) in told {
            let _ = tell.send(answers);
        }
        loop {
            let mut state = lock(&self.state);
            let (Some(listener), Some(messages)) = (state.listener.clone(), &mut state.messages)
            else {
                return;
            };
            if messages.from.front().is_none_or(|(due, _)| *due > now) {
                return;
            }
            let said = messages.from.pop_front().map(|(_, said)| said);
            if let Some(Said::Mark(mark)) = said
                && mark >= OWN_MARKS
            {
                messages.passed = mark;
            }
            drop(state);
            if let Some(Said::Mark(mark)) = &said
                && *mark < OWN_MARKS
            {
                self.note(|| format!("mark {mark}"));
            }
            match said {
                Some(Said::Message((channel, payload))) => {
                    listener.message(SERVER, &channel, payload);
                }
                Some(Said::Mark(mark)) if mark < OWN_MARKS => listener.passed(SERVER, mark),
                _ => {}
            }
        }
    }
}

impl Messages {
    fn new(server: usize, now: u64, instant: Instant) -> Self {
        Self {
            server,
            to: VecDeque::new(),
            from: VecDeque::new(),
            wanted: BTreeSet::new(),
            passed: OWN_MARKS,
            marks: Marks::new(OWN_MARKS, instant),
            patience: Patience::new(instant),
            look_at: now + WATCH_INTERVAL,
        }
    }
}

fn unanswered(count: usize) -> Answers {
    vec![Err(CallError::Unanswered("lost".to_owned())); count]
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

impl Connections for Line {
    fn listen(&self, listener: Arc<dyn Listener>) {
        lock(&self.state).listener = Some(listener.clone());
        listener.moved();
    }

    fn end(&self) {
        let mut state = lock(&self.state);
        let gone = (
            state.listener.take(),
            state.commands.take(),
            state.messages.take(),
        );
        drop(state);
        drop(gone);
        self.tasks.end();
    }

    fn examine<'a>(&'a self, _: Command, _: &'a str) -> Borrowing<'a, Result<(), StartError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn call(&self, commands: Vec<Command>) -> Pending<Answers> {
        let count = commands.len();
        let mut state = lock(&self.state);
        let last = match &state.commands {
            Some(link) => link.to.back().map(|call| call.due),
            None => {
                return Box::pin(std::future::ready(vec![Err(CallError::NotSent); count]));
            }
        };
        let due = self.due(&mut state, last);
        let (tell, told) = oneshot::channel();
        let call = Call {
            due,
            asked_at: self.clock.now(),
            commands,
            answers: Vec::new(),
            tell: Some(tell),
        };
        if let Some(link) = &mut state.commands {
            link.to.push_back(call);
        }
        Box::pin(async move { told.await.unwrap_or_else(|_| unanswered(count)) })
    }

    fn subscribe(
        &self,
        _: ServerId,
        added: Vec<String>,
        removed: Vec<String>,
        mark: u64,
    ) -> Borrowing<'_, Result<(), CallError>> {
        let mut state = lock(&self.state);
        let last = match &state.messages {
            Some(link) => link.to.back().map(|(due, _)| *due),
            None => return Box::pin(std::future::ready(Err(CallError::NotSent))),
        };
        let due = self.due(&mut state, last);
        self.note(|| format!("asks for {added:?}, not {removed:?}, mark {mark}"));
        let (tell, told) = oneshot::channel();
        if let Some(link) = &mut state.messages {
            link.to
                .push_back((due, Ask::Change(added, removed, mark, tell)));
        }
        Box::pin(async move {
            let lost = CallError::Unanswered("lost".to_owned());
            told.await.unwrap_or(Err(lost))
        })
    }

    fn servers(&self) -> Vec<ServerId> {
        vec![SERVER]
    }

    fn server_of(&self, _: &str) -> ServerId {
        SERVER
    }

    fn generation(&self) -> u64 {
        lock(&self.state).generation
    }

    fn is_connected(&self) -> bool {
        let state = lock(&self.state);
        state.commands.is_some() && state.messages.is_some()
    }

    fn is_cluster(&self) -> bool {
        false
    }

    fn spawn(&self, task: Pending<()>) {
        self.tasks.spawn(task);
    }

    fn pause(&self, length: Duration) -> Pending<()> {
        self.tasks.pause(length)
    }

    fn now(&self) -> Instant {
        self.clock.instant()
    }
}
