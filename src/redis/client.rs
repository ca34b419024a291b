//! One connection to a server: commands leave in the order in which they are asked, answers come in the same, and between
//! them what was published.
//!
//! [`Client`] asks, [`Connection`] does the work while it is polled. Nothing is ever sent twice and nothing is mended: when
//! the connection ends, for whatever reason, all that was not answered fails.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::lane::Answer;
use super::pipeline::Pipeline;
use super::resp::{Frame, Garbled, KEPT_BYTES, Reader};
use super::value::Value;
use super::{COMMAND_TIMEOUT, CallError, refused};
use crate::tls::Stream;

/// The most commands that wait for their answers; more fail at once.
const COMMANDS_MAX: usize = 65_536;

/// The most bytes that wait to be written; what comes then fails at once.
const OUTGOING_BYTES_MAX: usize = 64 << 20;

/// How much is read at once.
const READ_BYTES: usize = 32 << 10;

/// How many connections there were.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// Asks a server. Its clones ask over the same connection.
#[derive(Clone)]
pub(super) struct Client {
    line: Arc<Line>,
    /// Which of this process's connections it is.
    id: u64,
}

/// What asks and what does the work share.
#[derive(Default)]
struct Line {
    state: Mutex<State>,
    is_closed: AtomicBool,
    /// Whether something was refused before the last fence.
    was_refused: AtomicBool,
}

#[derive(Default)]
struct State {
    outgoing: Vec<u8>,
    /// In the order in which they were asked.
    waiting: VecDeque<Waiting>,
    /// How many commands are not answered.
    commands: usize,
    /// Whoever does the work.
    waker: Option<Waker>,
}

/// Who waits for answers.
struct Waiting {
    commands: usize,
    is_fenced: bool,
    answers: Vec<Answer>,
    tell: oneshot::Sender<Vec<Answer>>,
}

impl Waiting {
    /// Whether nothing more comes for it. Subscriptions are not answered, only refused; the fence behind them always is.
    fn has_all(&self) -> Result<bool, Garbled> {
        let is_last = self.answers.len() == self.commands;
        match self.answers.last() {
            _ if !self.is_fenced => Ok(is_last),
            Some(Ok(Value::Map(_))) => Ok(true),
            Some(Err(_)) if !is_last => Ok(false),
            _ => Err(Garbled),
        }
    }
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        if let Some(waker) = self.state().waker.take() {
            waker.wake();
        }
    }

    /// Whoever asks or closes from now on wakes this task.
    fn listen(&self, waker: &Waker) {
        let mut state = self.state();
        match &mut state.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    /// Puts commands behind the earlier ones.
    fn put(&self, pipeline: Pipeline, is_fenced: bool) -> Option<oneshot::Receiver<Vec<Answer>>> {
        let (text, commands) = pipeline.into_text();
        let (tell, told) = oneshot::channel();
        if commands == 0 {
            // No answer will ever come for it.
            let _ = tell.send(Vec::new());
            return Some(told);
        }
        let mut state = self.state();
        let is_full = state.commands + commands > COMMANDS_MAX
            || state.outgoing.len() + text.len() > OUTGOING_BYTES_MAX;
        // Looked at while nobody else can: whoever closes it takes away what waits afterwards.
        if is_full || self.is_closed() {
            return None;
        }
        match state.outgoing.is_empty() {
            true => state.outgoing = text,
            false => state.outgoing.extend_from_slice(&text),
        }
        state.commands += commands;
        state.waiting.push_back(Waiting {
            commands,
            is_fenced,
            answers: Vec::with_capacity(commands),
            tell,
        });
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        Some(told)
    }

    /// Hands an answer to whoever is the first to wait.
    fn answered(&self, value: Value) -> Result<(), Garbled> {
        let answer = match value {
            Value::Error(why) => Err(refused(&String::from_utf8_lossy(&why))),
            value => Ok(value),
        };
        let mut state = self.state();
        let first = state.waiting.front_mut().ok_or(Garbled)?;
        first.answers.push(answer);
        if first.has_all()?
            && let Some(first) = state.waiting.pop_front()
        {
            state.commands -= first.commands;
            if first.is_fenced {
                let was_refused = first.answers.iter().any(Result::is_err);
                self.was_refused.store(was_refused, Ordering::Release);
            }
            // Whoever asked may have stopped waiting.
            let _ = first.tell.send(first.answers);
        }
        Ok(())
    }
}

impl Client {
    /// One that nobody does the work for yet.
    pub(super) fn over(stream: Stream) -> (Self, Connection) {
        let line = Arc::new(Line::default());
        let connection = Connection {
            stream,
            line: line.clone(),
            reader: Reader::new(),
            writing: Vec::new(),
            written: 0,
        };
        let id = CONNECTIONS.fetch_add(1, Ordering::Relaxed) + 1;
        (Self { line, id }, connection)
    }

    /// Which of this process's connections it is.
    pub(super) const fn id(&self) -> u64 {
        self.id
    }

    /// Whether its connection stands, as far as anybody knows.
    pub(super) fn is_open(&self) -> bool {
        !self.line.is_closed()
    }

    /// Whether any of the last subscriptions that were answered for was refused. What comes next on the connection came behind
    /// them.
    pub(super) fn was_refused(&self) -> bool {
        self.line.was_refused.load(Ordering::Acquire)
    }

    /// Ends the connection.
    pub(super) fn close(&self) {
        self.line.close();
    }

    /// Sends commands behind those of earlier calls, at once. The answers are one for each, within the time of a command.
    pub(super) fn ask(&self, pipeline: Pipeline) -> impl Future<Output = Vec<Answer>> + use<> {
        let count = pipeline.commands();
        let told = self.line.put(pipeline, false);
        async move {
            let answers = in_time(told).await;
            answers.unwrap_or_else(|error| vec![Err(error); count])
        }
    }

    /// The same of one command.
    pub(super) async fn ask_one(&self, pipeline: Pipeline) -> Answer {
        let mut answers = self.ask(pipeline).await;
        answers.pop().unwrap_or(Err(CallError::NotSent))
    }

    /// Sends commands that subscribe and unsubscribe. They all have taken effect when it is done, or it is told what the server
    /// says of the first that it refused.
    ///
    /// What takes effect is confirmed by what the server pushes, in numbers that it alone decides, and only a refusal is an
    /// answer. So the fence behind them must have an answer that no other command on such a connection has, under all circumstances:
    /// `HELLO` is a map, is asked in no other way here, and is refused by no rules, no busy script and no lack of memory.
    pub(super) async fn subscribe(&self, mut pipeline: Pipeline) -> Result<(), CallError> {
        pipeline.add_words(["HELLO"].into_iter());
        let answers = in_time(self.line.put(pipeline, true)).await?;
        answers.into_iter().try_for_each(|answer| answer.map(drop))
    }
}

/// What is told within the time of a command, if it was asked at all.
async fn in_time(told: Option<oneshot::Receiver<Vec<Answer>>>) -> Result<Vec<Answer>, CallError> {
    let told = told.ok_or(CallError::NotSent)?;
    let why = match timeout(COMMAND_TIMEOUT, told).await {
        Ok(Ok(answers)) => return Ok(answers),
        Ok(Err(_)) => "the connection ended",
        Err(_) => "timed out",
    };
    Err(CallError::Unanswered(why.to_owned()))
}

/// The connection itself. When it is dropped, what was not answered fails.
pub(super) struct Connection {
    stream: Stream,
    line: Arc<Line>,
    reader: Reader,
    writing: Vec<u8>,
    /// How much of that has left.
    written: usize,
}

impl Connection {
    /// Does the work until the connection ends; why it did. `hear` is told what was published, the channel first. It must
    /// not block.
    pub(super) async fn run(&mut self, mut hear: impl FnMut(Bytes, Bytes)) -> io::Error {
        poll_fn(|context| self.poll(context, &mut hear)).await
    }

    /// Does the work for somebody who asks over it.
    ///
    /// # Errors
    /// When it ends before.
    pub(super) async fn with<T>(&mut self, asking: impl Future<Output = T>) -> io::Result<T> {
        let mut asking = pin!(asking);
        let error = tokio::select! {
            biased;
            done = &mut asking => return Ok(done),
            error = self.run(|_, _| {}) => error,
        };
        // The last that came may have been the answer.
        tokio::select! {
            biased;
            done = asking => Ok(done),
            () = std::future::ready(()) => Err(error),
        }
    }

    /// What is answered from now on may be as long as anything that is asked for.
    pub(super) fn trust(&mut self) {
        self.reader.trust();
    }

    /// Does the work until everything is answered.
    pub(super) async fn finish(&mut self) {
        poll_fn(|context| {
            let ended = self.poll(context, &mut |_, _| {}).is_ready();
            match ended || self.line.state().waiting.is_empty() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
        hear: &mut impl FnMut(Bytes, Bytes),
    ) -> Poll<io::Error> {
        self.line.listen(context.waker());
        if self.line.is_closed() {
            return Poll::Ready(io::Error::other("it was given up"));
        }
        let written = self.write(context);
        // What the server said before it took no more is read in any case.
        match self.read(context, hear).and(written) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(error),
        }
    }

    /// Writes all that the socket takes.
    fn write(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        loop {
            if self.written == self.writing.len() && !self.take_outgoing() {
                return Ok(());
            }
            let left = &self.writing[self.written..];
            match Pin::new(&mut self.stream).poll_write(context, left)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(count) => self.written += count,
                Poll::Pending => return Ok(()),
            }
        }
    }

    /// Whether there was something to be written.
    fn take_outgoing(&mut self) -> bool {
        self.written = 0;
        self.writing.clear();
        if self.writing.capacity() > KEPT_BYTES {
            self.writing = Vec::new();
        }
        std::mem::swap(&mut self.line.state().outgoing, &mut self.writing);
        !self.writing.is_empty()
    }

    fn read(
        &mut self,
        context: &mut Context<'_>,
        hear: &mut impl FnMut(Bytes, Bytes),
    ) -> io::Result<()> {
        loop {
            let buffer = &mut self.reader.buffer;
            if buffer.capacity() - buffer.len() < READ_BYTES / 2 {
                buffer.reserve(READ_BYTES);
            }
            match pin!(self.stream.read_buf(buffer)).poll(context)? {
                Poll::Ready(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Poll::Ready(_) => {}
                Poll::Pending => return Ok(()),
            }
            while let Some(frame) = self.reader.next().map_err(io::Error::other)? {
                match frame {
                    Frame::Answer(value) => self.line.answered(value).map_err(io::Error::other)?,
                    Frame::Message { channel, payload } => hear(channel, payload),
                    Frame::Push => {}
                }
                if self.line.is_closed() {
                    return Err(io::Error::other("it was given up"));
                }
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.line.close();
        // Whoever waits hears that nothing will come.
        self.line.state().waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::super::Command;
    use super::*;

    /// A connection to somebody who answers the first thing that comes with these bytes, and then no more.
    async fn answered_with(bytes: &'static [u8]) -> (Client, Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let socket = TcpStream::connect(address).await.expect("it listens");
        let (mut other, _) = listener.accept().await.expect("a connection");
        other.write_all(bytes).await.expect("it is read");
        let (client, connection) = Client::over(Stream::Plain(socket));
        (client, connection, other)
    }

    fn pings(count: usize) -> Pipeline {
        let mut pipeline = Pipeline::default();
        for _ in 0..count {
            pipeline.add(&[&Command::new("PING")], false);
        }
        pipeline
    }

    fn number(number: i64) -> Answer {
        Ok(Value::Integer(number))
    }

    #[tokio::test]
    async fn answers_go_to_whoever_asked_in_their_order() {
        let (client, mut connection, _other) =
            answered_with(b":1\r\n:2\r\n-ERR no\r\n:4\r\n").await;
        let asked = (
            client.ask(pings(2)),
            client.ask(pings(0)),
            client.ask(pings(1)),
            client.ask_one(pings(1)),
        );
        let (two, none, refused, last) = connection
            .with(async { tokio::join!(asked.0, asked.1, asked.2, asked.3) })
            .await
            .expect("it stands");
        assert_eq!(two, [number(1), number(2)]);
        assert_eq!(none, []);
        assert_eq!(refused, [Err(CallError::Refused("ERR no".to_owned()))]);
        assert_eq!(last, number(4));
    }

    #[tokio::test]
    async fn a_refused_subscription_is_not_taken_for_another_answer() {
        let (client, mut connection, _other) = answered_with(
            b"-NOPERM no\r\n>3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:1\r\n-ERR no\r\n%0\r\n\
            >3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:2\r\n>3\r\n$9\r\nsubscribe\r\n$1\r\nd\r\n:3\r\n%0\r\n:8\r\n",
        )
        .await;
        let asked = async {
            tokio::join!(
                biased;
                client.subscribe(pings(3)),
                client.subscribe(pings(1)),
                client.ask_one(pings(1))
            )
        };
        let (refused, taken, last) = connection.with(asked).await.expect("it stands");
        assert_eq!(refused, Err(CallError::Refused("NOPERM no".to_owned())));
        assert_eq!(taken, Ok(()));
        assert_eq!(last, number(8));
        assert!(!client.was_refused(), "the last were taken");
    }

    #[tokio::test]
    async fn what_is_no_fence_ends_the_connection() {
        for bytes in [b":1\r\n".as_slice(), b"-ERR no\r\n-ERR no\r\n"] {
            let (client, mut connection, _other) = answered_with(bytes).await;
            let asked = connection.with(client.subscribe(pings(1))).await;
            let error = asked.expect_err("nobody knows whose it is").to_string();
            assert!(error.contains("RESP3"), "{error}");
        }
    }

    #[tokio::test]
    async fn the_last_answer_counts_though_the_connection_ends_with_it() {
        let (client, mut connection, mut other) = answered_with(b"-DENIED no\r\n").await;
        other.shutdown().await.expect("it stands");
        let asked = connection.with(client.ask_one(pings(1))).await;
        let denied = Err(CallError::Refused("DENIED no".to_owned()));
        assert_eq!(asked.expect("it was answered"), denied);
    }

    #[tokio::test]
    async fn what_is_given_up_ends_though_nobody_reads_it() {
        let (client, mut connection, _other) = answered_with(b"").await;
        let much = "a".repeat(OUTGOING_BYTES_MAX / 2);
        let told = client.ask_one(Pipeline::of_words(&["SET", "key", &much]));
        let closing = async {
            // By now the socket takes no more.
            tokio::task::yield_now().await;
            client.close();
        };
        let (error, ()) = tokio::join!(biased; connection.run(|_, _| {}), closing);
        assert!(error.to_string().contains("given up"), "{error}");
        drop(connection);
        assert!(told.await.is_err());
    }

    #[tokio::test]
    async fn what_is_published_is_heard_between_answers() {
        let (client, mut connection, mut other) = answered_with(
            b">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\nhi\r\n:1\r\n>2\r\n+invalidate\r\n_\r\n",
        )
        .await;
        let told = client.ask(pings(1));
        other.shutdown().await.expect("it stands");
        let mut heard = Vec::new();
        let error = connection
            .run(|channel, payload| heard.push((channel, payload)))
            .await;
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let news = (Bytes::from_static(b"news"), Bytes::from_static(b"hi"));
        assert_eq!(heard, [news]);
        assert_eq!(told.await, [number(1)]);
    }

    #[tokio::test]
    async fn what_is_not_answered_fails_with_the_connection() {
        for bytes in [
            b":1\r\n:2".as_slice(),
            b":1\r\nHTTP/1.1 400\r\n",
            b":1\r\n:2\r\n:3\r\n",
        ] {
            let (client, mut connection, mut other) = answered_with(bytes).await;
            let (first, second) = (client.ask(pings(1)), client.ask(pings(2)));
            other.shutdown().await.expect("it stands");
            connection.run(|_, _| {}).await;
            drop(connection);
            assert_eq!(first.await, [number(1)]);
            match bytes.ends_with(b":3\r\n") {
                true => assert_eq!(second.await, [number(2), number(3)]),
                false => {
                    let lost = CallError::Unanswered("the connection ended".to_owned());
                    assert_eq!(second.await, [Err(lost.clone()), Err(lost)]);
                }
            }
            assert!(!client.is_open());
            assert_eq!(client.ask_one(pings(1)).await, Err(CallError::NotSent));
        }
    }

    #[tokio::test]
    async fn an_answer_that_nobody_asked_for_ends_the_connection() {
        let (_client, mut connection, _other) = answered_with(b":1\r\n").await;
        let error = connection.run(|_, _| {}).await;
        assert!(error.to_string().contains("RESP3"), "{error}");
    }

    #[tokio::test]
    async fn more_than_may_wait_is_not_sent() {
        let (client, mut connection, _other) = answered_with(b"").await;
        let waits = client.ask(pings(COMMANDS_MAX));
        assert_eq!(client.ask_one(pings(1)).await, Err(CallError::NotSent));
        let large = "a".repeat(OUTGOING_BYTES_MAX);
        let large = Pipeline::of_words(&["SET", "key", &large]);
        assert_eq!(client.ask_one(large).await, Err(CallError::NotSent));
        client.close();
        connection.run(|_, _| {}).await;
        drop(connection);
        assert!(waits.await.iter().all(Result::is_err));
    }
}
