//! Calls of the database: each on the runtime of the store, so that what was begun ends although whoever asked has gone away;
//! bounded in number and time.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Transaction;
use sqlx::postgres::{PgPool, Postgres};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::session::StoreError;
use crate::session::store::Answer;

/// The most calls that are under way or wait.
const CALLS_MAX: usize = 4096;
/// How long a call may take: longer than the database and the other store may each.
const CALL_TIMEOUT: Duration = Duration::from_secs(8);
/// The same for a sweep, which asks about each of many users.
const SWEEP_TIMEOUT: Duration = Duration::from_secs(600);

/// Why a call came to nothing.
#[derive(Debug)]
pub(super) enum Failed {
    /// The database failed: nothing was done.
    Database(sqlx::Error),
    /// It did not say whether it committed.
    Commit(sqlx::Error),
    /// The other store failed.
    Rest(StoreError),
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Rest(error)
    }
}

/// The way to the database.
pub(super) struct Calls {
    pool: PgPool,
    places: Arc<Semaphore>,
    runtime: Handle,
}

impl Calls {
    /// On the present runtime.
    pub(super) fn new(pool: PgPool) -> Self {
        Self {
            pool,
            places: Arc::new(Semaphore::new(CALLS_MAX)),
            runtime: Handle::current(),
        }
    }

    /// Reads. What did not come in time changed nothing.
    pub(super) fn read<T, F>(&self, call: impl FnOnce(PgPool) -> F) -> Answer<'static, T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failed>> + Send + 'static,
    {
        self.begin(CALL_TIMEOUT, StoreError::Unavailable, call)
    }

    /// Changes something.
    pub(super) fn change<T, F>(&self, call: impl FnOnce(PgPool) -> F) -> Answer<'static, T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failed>> + Send + 'static,
    {
        self.begin(CALL_TIMEOUT, StoreError::OutcomeUnknown, call)
    }

    /// Sweeps.
    pub(super) fn sweep<T, F>(&self, call: impl FnOnce(PgPool) -> F) -> Answer<'static, T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failed>> + Send + 'static,
    {
        self.begin(SWEEP_TIMEOUT, StoreError::OutcomeUnknown, call)
    }

    /// Begins now. `late` is what is answered when the time is over.
    fn begin<T, F>(
        &self,
        limit: Duration,
        late: StoreError,
        call: impl FnOnce(PgPool) -> F,
    ) -> Answer<'static, T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failed>> + Send + 'static,
    {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return Box::pin(std::future::ready(Err(StoreError::Busy)));
        };
        let call = call(self.pool.clone());
        let task = self.runtime.spawn(async move {
            let answered = timeout(limit, call).await;
            drop(place);
            match answered {
                Ok(answer) => answer.map_err(fault),
                Err(_) => Err(late),
            }
        });
        Box::pin(async move { task.await.unwrap_or(Err(StoreError::Unavailable)) })
    }
}

/// Makes a transaction's changes true, and answers `value`.
pub(super) async fn commit<T>(
    transaction: Transaction<'_, Postgres>,
    value: T,
) -> Result<T, Failed> {
    match transaction.commit().await {
        Ok(()) => Ok(value),
        // The server said that it did not.
        Err(error @ sqlx::Error::Database(_)) => Err(Failed::Database(error)),
        Err(error) => Err(Failed::Commit(error)),
    }
}

/// What is told of it. What the database says may hold values of columns, so it goes to the log only as its code.
fn fault(failed: Failed) -> StoreError {
    match failed {
        Failed::Rest(error) => error,
        Failed::Database(error) => {
            complain(&error);
            StoreError::Unavailable
        }
        Failed::Commit(error) => {
            complain(&error);
            StoreError::OutcomeUnknown
        }
    }
}

fn complain(error: &sqlx::Error) {
    match error {
        sqlx::Error::Database(said) => {
            let code = said.code().unwrap_or_default();
            tracing::error!(%code, "postgres refused a statement");
        }
        other => tracing::warn!(error = %other, "postgres cannot be asked"),
    }
}
