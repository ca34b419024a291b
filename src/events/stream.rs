//! Events as a stream in Redis: one key for the fleet, each entry with the field `event`, trimmed to about so many. Back ends
//! read it with a consumer group (`XREADGROUP`), and so hear of what happened while they were away.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use super::outlet::{Sink, Told};
use super::{Event, StreamConfig};
use crate::redis::{CallError, Command, Redis};

/// A stream.
pub(super) struct StreamSink {
    redis: Redis,
    key: String,
    length: u64,
}

impl StreamSink {
    /// Begins to connect.
    ///
    /// # Errors
    /// When the system gives no thread, or the server cannot be meant.
    pub(super) fn start(config: &StreamConfig) -> io::Result<Self> {
        let redis = Redis::new(&config.redis, String::new(), &[]).map_err(io::Error::other)?;
        redis.connect();
        Ok(Self {
            redis,
            key: config.key.clone(),
            length: config.length,
        })
    }

    /// Nothing is sent twice by the connection itself; a batch of which a part was added before the connection broke is
    /// added again by the outlet, with the same ids.
    async fn add(&self, batch: &[Arc<Event>]) -> Told {
        let commands = batch.iter().map(|event| {
            Command::new("XADD")
                .word(self.key.clone())
                .word("MAXLEN")
                .word("~")
                .number(self.length)
                .word("*")
                .word("event")
                .word(event.write())
        });
        let answers = self.redis.call(commands.collect()).await;
        match answers.into_iter().find_map(Result::err) {
            None => Told::Taken,
            Some(CallError::Refused(why)) => {
                tracing::error!(why, "redis refuses the stream of events");
                Told::Refused
            }
            Some(error) => {
                tracing::debug!(?error, "the stream of events cannot be written now");
                Told::Later
            }
        }
    }
}

impl Sink for StreamSink {
    fn tell<'a>(
        &'a self,
        batch: &'a [Arc<Event>],
    ) -> Pin<Box<dyn Future<Output = Told> + Send + 'a>> {
        Box::pin(self.add(batch))
    }
}
