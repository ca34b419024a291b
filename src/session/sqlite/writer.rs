//! The one connection to the file, and the task that works on it.
//!
//! SQLite lets one write at a time, and a commit costs more than what it commits. So whatever is asked while a commit
//! is under way goes into the next one together: everything in a batch becomes durable with one commit, and nobody is
//! answered before it. When anything in a batch fails, nothing of the batch was done.

use std::future::Future;
use std::pin::Pin;

use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use crate::session::StoreError;
use crate::session::store::Answer;

/// The most that may wait.
const QUEUE_CAPACITY: usize = 4096;
/// The most that one commit takes.
const BATCH_MAX: usize = 256;

/// What an operation waits for on the connection.
pub(super) type Work<'c, T> = Pin<Box<dyn Future<Output = Result<T, sqlx::Error>> + Send + 'c>>;
/// Tells whoever asked, once it is known whether the batch was committed.
type Finish = Box<dyn FnOnce(bool) + Send>;
/// An operation that does not know what it answers.
type Operation = Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, Finish> + Send>;

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

    /// Does `run` within the next batch. It is done even when nobody waits for the answer any more.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        run: impl for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, T> + Send + 'static,
    ) -> Answer<'static, T> {
        let (sender, receiver) = oneshot::channel();
        let operation: Operation = Box::new(move |connection| {
            let work = run(connection);
            Box::pin(async move {
                let value = work.await?;
                Ok(Box::new(move |is_committed| {
                    let answer = if is_committed {
                        Ok(value)
                    } else {
                        Err(StoreError::Unavailable)
                    };
                    // Whoever asked may be gone.
                    let _ = sender.send(answer);
                }) as Finish)
            })
        });
        let sent = self.operations.try_send(operation);
        Box::pin(async move {
            match sent {
                Ok(()) => receiver.await.unwrap_or(Err(StoreError::Unavailable)),
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

/// What failed or was not begun is dropped, which tells its asker that nothing was done.
async fn commit(
    connection: &mut SqliteConnection,
    batch: impl Iterator<Item = Operation>,
    finishes: &mut Vec<Finish>,
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for operation in batch {
        finishes.push(operation(&mut transaction).await?);
    }
    transaction.commit().await
}
