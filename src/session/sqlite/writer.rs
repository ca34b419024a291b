//! The one connection to the file, and the task that works on it.
//!
//! SQLite lets one write at a time, and a commit costs more than what it commits. So whatever is asked while a commit
//! is under way goes into the next one together: everything in a batch becomes durable with one commit, and nobody is
//! answered before it. An operation that fails fails alone; when the file does, nothing of the batch was done.

use std::future::Future;
use std::pin::Pin;

use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::joined::{self, JOINED_MAX, OnSession, Tell};
use crate::session::StoreError;
use crate::session::store::Answer;

/// The most that may wait.
const QUEUE_CAPACITY: usize = 4096;
/// The most that one commit takes.
const BATCH_MAX: usize = 256;

/// What an operation waits for on the connection.
pub(super) type Work<'c, T> = Pin<Box<dyn Future<Output = Result<T, sqlx::Error>> + Send + 'c>>;
/// Tells whoever asked, once it is known whether the batch was committed.
pub(super) type Finish = Box<dyn FnOnce(bool) + Send>;
/// An operation's work, which does not know what it answers.
type Run = Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, Finish> + Send>;

enum Operation {
    /// Changes nothing.
    Read(Run),
    /// Stands in a savepoint of its own, which costs two statements.
    Change(Run),
    /// Is joined with those beside it.
    Session(OnSession),
}

/// Tells this, unless the batch was not committed.
pub(super) fn finish<T: Send + 'static>(tell: Tell<T>, value: T) -> Finish {
    Box::new(move |is_committed| {
        let answer = if is_committed {
            Ok(value)
        } else {
            Err(StoreError::Unavailable)
        };
        // Whoever asked may be gone.
        let _ = tell.send(answer);
    })
}

/// The way to the task.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    operations: mpsc::Sender<Operation>,
}

impl Writer {
    /// Starts the task on the present runtime. It ends when the last writer is gone and everything is answered.
    pub(super) fn start(connection: SqliteConnection) -> Self {
        let (operations, queue) = mpsc::channel(QUEUE_CAPACITY);
        tokio::spawn(work(connection, queue));
        Self { operations }
    }

    /// Does `run`, which changes nothing, within the next batch.
    pub(super) fn read<T: Send + 'static>(
        &self,
        run: impl for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, T> + Send + 'static,
    ) -> Answer<'static, T> {
        self.ask(Operation::Read, run)
    }

    /// Does `run` within the next batch. It is done even when nobody waits for the answer any more.
    pub(super) fn change<T: Send + 'static>(
        &self,
        run: impl for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, T> + Send + 'static,
    ) -> Answer<'static, T> {
        self.ask(Operation::Change, run)
    }

    /// Does something about one session within the next batch.
    pub(super) fn on_session<T: Send + 'static>(
        &self,
        asked: impl FnOnce(Tell<T>) -> OnSession,
    ) -> Answer<'static, T> {
        let (tell, told) = oneshot::channel();
        self.send(Operation::Session(asked(tell)), told)
    }

    fn ask<T: Send + 'static>(
        &self,
        kind: fn(Run) -> Operation,
        run: impl for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, T> + Send + 'static,
    ) -> Answer<'static, T> {
        let (tell, told) = oneshot::channel();
        let run: Run = Box::new(move |connection| {
            let work = run(connection);
            Box::pin(async move { Ok(finish(tell, work.await?)) })
        });
        self.send(kind(run), told)
    }

    fn send<T: Send + 'static>(
        &self,
        operation: Operation,
        told: oneshot::Receiver<Result<T, StoreError>>,
    ) -> Answer<'static, T> {
        let sent = self.operations.try_send(operation);
        Box::pin(async move {
            match sent {
                Ok(()) => told.await.unwrap_or(Err(StoreError::Unavailable)),
                Err(mpsc::error::TrySendError::Full(_)) => Err(StoreError::Busy),
                Err(mpsc::error::TrySendError::Closed(_)) => Err(StoreError::Unavailable),
            }
        })
    }
}

async fn work(mut connection: SqliteConnection, mut queue: mpsc::Receiver<Operation>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while queue.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let mut finishes = Vec::with_capacity(batch.len());
        let committed = commit(&mut connection, batch.drain(..), &mut finishes).await;
        if let Err(error) = &committed {
            tracing::error!(%error, "the data file failed: nothing of a batch was kept");
        }
        for finish in finishes {
            finish(committed.is_ok());
        }
    }
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "the data file did not close well");
    }
}

/// What failed or was not begun is dropped, which tells its asker that nothing was done. An error is the whole batch's.
///
/// The statements are written out: sqlx counts how deep its transactions are, and goes on counting one that SQLite has given up
/// by itself, after which it begins no other.
async fn commit(
    connection: &mut SqliteConnection,
    batch: impl Iterator<Item = Operation>,
    finishes: &mut Vec<Finish>,
) -> Result<(), sqlx::Error> {
    say(connection, "BEGIN IMMEDIATE").await?;
    let mut done = perform_all(connection, batch, finishes).await;
    if done.is_ok() {
        done = say(connection, "COMMIT").await;
    }
    if done.is_err() {
        // Where SQLite has done so already, this fails and says no more than that.
        let _ = say(connection, "ROLLBACK").await;
    }
    done
}

/// Does all operations in their order; an error ends the batch.
async fn perform_all(
    connection: &mut SqliteConnection,
    batch: impl Iterator<Item = Operation>,
    finishes: &mut Vec<Finish>,
) -> Result<(), sqlx::Error> {
    let mut batch = batch.peekable();
    while let Some(operation) = batch.next() {
        let run = match operation {
            Operation::Session(first) => {
                let mut asked = vec![first];
                while asked.len() < JOINED_MAX
                    && let Some(Operation::Session(next)) =
                        batch.next_if(|next| matches!(next, Operation::Session(_)))
                {
                    asked.push(next);
                }
                joined::perform(connection, asked, finishes).await?;
                continue;
            }
            Operation::Read(run) => read(connection, run).await?,
            Operation::Change(run) => change(connection, run).await?,
        };
        match run {
            Ok(finish) => finishes.push(finish),
            Err(error) => {
                tracing::error!(%error, "the data file did not do one thing of a batch");
            }
        }
    }
    Ok(())
}

/// What came of one operation: what is wrong with that one alone is the inner error, and nothing of it was done; the outer one
/// ends the batch.
type Performed = Result<Result<Finish, sqlx::Error>, sqlx::Error>;

async fn read(connection: &mut SqliteConnection, run: Run) -> Performed {
    match run(connection).await {
        Ok(finish) => Ok(Ok(finish)),
        // A row that we cannot read: the file did its part.
        Err(error @ (sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. })) => Ok(Err(error)),
        // SQLite may have given up the transaction, and what came after would be outside of it.
        Err(error) => Err(error),
    }
}

async fn change(connection: &mut SqliteConnection, run: Run) -> Performed {
    say(connection, "SAVEPOINT operation").await?;
    let done = run(connection).await;
    if done.is_err() {
        // Fails where SQLite gave up the transaction by itself, as when the disk is full.
        say(connection, "ROLLBACK TO operation").await?;
    }
    say(connection, "RELEASE operation").await?;
    Ok(done)
}

async fn say(connection: &mut SqliteConnection, sql: &'static str) -> Result<(), sqlx::Error> {
    sqlx::query(sql).execute(connection).await.map(drop)
}

#[cfg(test)]
mod tests {
    use sqlx::ConnectOptions as _;
    use sqlx::sqlite::SqliteConnectOptions;

    use super::*;

    async fn writer() -> Writer {
        let options = SqliteConnectOptions::new().in_memory(true);
        let mut connection = options.connect().await.expect("it opens");
        let table = sqlx::query("CREATE TABLE numbers (number INTEGER)");
        table.execute(&mut connection).await.expect("a table");
        Writer::start(connection)
    }

    async fn put(connection: &mut SqliteConnection, number: i64) -> Result<(), sqlx::Error> {
        let insert = sqlx::query("INSERT INTO numbers VALUES (?)").bind(number);
        insert.execute(connection).await.map(drop)
    }

    fn numbers(writer: &Writer) -> Answer<'static, Vec<i64>> {
        writer.read(|connection| {
            Box::pin(
                sqlx::query_scalar("SELECT number FROM numbers ORDER BY number")
                    .fetch_all(connection),
            )
        })
    }

    /// All of it is asked before the task runs, so it is one batch.
    #[tokio::test]
    async fn what_fails_in_a_batch_fails_alone() {
        let writer = writer().await;
        let good = |number| {
            writer.change(move |connection| Box::pin(async move { put(connection, number).await }))
        };
        let first = good(1);
        let undone: Answer<'_, ()> = writer.change(|connection| {
            Box::pin(async move {
                put(connection, 2).await?;
                sqlx::query("INSERT INTO nowhere VALUES (2)")
                    .execute(connection)
                    .await
                    .map(drop)
            })
        });
        let unreadable: Answer<'_, ()> = writer
            .read(|_| Box::pin(async { Err(sqlx::Error::Decode("an operator's row".into())) }));
        let second = good(3);
        assert_eq!(first.await, Ok(()));
        assert_eq!(undone.await, Err(StoreError::Unavailable));
        assert_eq!(unreadable.await, Err(StoreError::Unavailable));
        assert_eq!(second.await, Ok(()));
        assert_eq!(numbers(&writer).await, Ok(vec![1, 3]));
    }

    #[tokio::test]
    async fn nothing_of_a_batch_is_done_when_the_file_fails() {
        let writer = writer().await;
        let first = writer.change(|connection| Box::pin(async move { put(connection, 1).await }));
        // What SQLite does by itself when the disk is full.
        let failing = writer.change(|connection| {
            Box::pin(async move {
                let rollback = sqlx::query("ROLLBACK").execute(connection).await;
                rollback.and(Err::<(), _>(sqlx::Error::WorkerCrashed))
            })
        });
        assert_eq!(first.await, Err(StoreError::Unavailable));
        assert_eq!(failing.await, Err(StoreError::Unavailable));
        assert_eq!(numbers(&writer).await, Ok(Vec::new()));
        // The next batch is one like any other.
        let next = writer.change(|connection| Box::pin(async move { put(connection, 4).await }));
        assert_eq!(next.await, Ok(()));
        assert_eq!(numbers(&writer).await, Ok(vec![4]));
    }
}
