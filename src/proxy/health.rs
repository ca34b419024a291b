//! Looks whether upstreams are well, where their service says so: each is asked for a path again and again, on a
//! connection of its own, beside all requests. Upstreams are taken to be well until a look says otherwise.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::cause::Cause;
use super::dialling::Way;
use super::endpoint::Endpoint;
use super::multiplexed::{Bounds, DialError};
use super::{HealthPolicy, Proxy};
use crate::http1::{HeadScan, ResponseHead, Scanned, slots};
use crate::telemetry::proxy as counts;
use crate::tls::{Connector, Stream};

/// How soon a reload is seen, at the latest.
const REST: Duration = Duration::from_secs(1);

/// What is known of one upstream's looks.
#[derive(Debug)]
struct Look {
    next: Instant,
    /// Good or bad answers in a row.
    row: u32,
    row_is_good: bool,
}

impl Look {
    /// Notes what a look found; tells what the upstream is from now on, when that is clear.
    fn note(&mut self, is_good: bool, policy: &HealthPolicy) -> Option<bool> {
        self.row = match self.row_is_good == is_good {
            true => self.row.saturating_add(1),
            false => 1,
        };
        self.row_is_good = is_good;
        let enough = match is_good {
            true => policy.healthy,
            false => policy.unhealthy,
        };
        (self.row >= enough).then_some(is_good)
    }
}

/// An upstream, and what its look found: why it is not well; nothing where it could not even ask.
type Done = (Arc<Endpoint>, HealthPolicy, Option<Result<(), String>>);

impl Proxy {
    /// Looks after the health of the upstreams for ever.
    pub async fn look_after_upstreams(&self) {
        let mut looks: HashMap<usize, Look> = HashMap::new();
        let mut running: JoinSet<Done> = JoinSet::new();
        loop {
            let now = Instant::now();
            self.begin_looks(now, &mut looks, &mut running);
            let next = looks.values().map(|look| look.next).min();
            let next = next.map_or(now + REST, |next| next.min(now + REST));
            tokio::select! {
                () = sleep_until(next) => {}
                Some(Ok(done)) = running.join_next() => self.end_look(done, &mut looks),
            }
        }
    }

    fn begin_looks(
        &self,
        now: Instant,
        looks: &mut HashMap<usize, Look>,
        running: &mut JoinSet<Done>,
    ) {
        let table = self.table.load();
        let mut present = Vec::new();
        for route in table.services() {
            let Some(policy) = &route.policy.health else {
                // Who looked before may have left it ill.
                for member in &route.members {
                    member.endpoint.found(true, self.at(now));
                }
                continue;
            };
            for member in &route.members {
                let endpoint = &member.endpoint;
                present.push(endpoint.id);
                let look = looks.entry(endpoint.id).or_insert(Look {
                    // Not all at once, on all nodes at once.
                    next: now + policy.interval.mul_f64(rand::random::<f64>() / 10.0),
                    row: 0,
                    row_is_good: true,
                });
                if look.next <= now {
                    look.next = now + policy.interval.max(policy.timeout);
                    let connector = self.connector.load_full();
                    let bounds = Bounds {
                        until: now + policy.timeout,
                        ..Bounds::of(&route.policy)
                    };
                    running.spawn(look_at(
                        endpoint.clone(),
                        policy.clone(),
                        (connector, bounds),
                    ));
                }
            }
        }
        looks.retain(|id, _| present.contains(id));
    }

    fn end_look(&self, (endpoint, policy, found): Done, looks: &mut HashMap<usize, Look>) {
        let (Some(look), Some(found)) = (looks.get_mut(&endpoint.id), found) else {
            return;
        };
        if let Err(cause) = &found {
            endpoint.note_cause(&Cause::Unhealthy(cause), self.now());
        }
        let Some(is_well) = look.note(found.is_ok(), &policy) else {
            return;
        };
        if endpoint.found(is_well, self.now()) {
            counts::health_changed(is_well);
            let upstream = &endpoint.address.url;
            match found {
                Ok(()) => tracing::info!(%upstream, "health checks find the upstream well again"),
                Err(cause) => {
                    tracing::warn!(%upstream, cause, "health checks find the upstream ill");
                }
            }
        }
    }
}

async fn look_at(
    endpoint: Arc<Endpoint>,
    policy: HealthPolicy,
    (connector, bounds): (Option<Arc<Connector>>, Bounds),
) -> Done {
    let dialled = endpoint.dial(connector.as_deref(), Way::Any, bounds);
    let found = match dialled.await {
        Ok(dialled) => {
            let asking = ask(&endpoint, &policy.path, dialled.socket);
            Some(match timeout_at(bounds.until, asking).await {
                Ok(Ok(200..400)) => Ok(()),
                Ok(Ok(status)) => Err(Cause::Status(status).to_string()),
                Ok(Err(error)) => Err(Cause::NoAnswer(&error).to_string()),
                Err(_) => Err(Cause::NoAnswerInTime.to_string()),
            })
        }
        // It is busy with others, which tell how it does.
        Err(DialError::Full) => None,
        Err(DialError::TimedOut) => Some(Err(Cause::NoConnectionInTime.to_string())),
        Err(DialError::Failed(error)) => Some(Err(Cause::NoConnection(&error).to_string())),
    };
    (endpoint, policy, found)
}

/// Asks once; the status of the answer.
async fn ask(endpoint: &Endpoint, path: &str, mut socket: Stream) -> io::Result<u16> {
    let host = endpoint.authority.to_str().unwrap_or_default();
    let base = &endpoint.address.base;
    let request = format!(
        "GET {base}{path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: fanfare\r\naccept: */*\r\nconnection: close\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await?;
    socket.flush().await?;
    let mut bytes = Vec::with_capacity(1024);
    let mut scan = HeadScan::default();
    loop {
        match scan.look(&bytes) {
            Scanned::Whole(length) => {
                let mut slots = slots();
                let head = ResponseHead::parse(&bytes[..length], &mut slots, false)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                return Ok(head.status);
            }
            Scanned::Partial => {}
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
        if socket.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_several_in_a_row() {
        let policy = HealthPolicy {
            path: "/".to_owned(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            healthy: 2,
            unhealthy: 3,
        };
        let mut look = Look {
            next: Instant::now(),
            row: 0,
            row_is_good: true,
        };
        let answers = [false, false, true, false, false, false, false, true, true];
        let found = answers.map(|is_good| look.note(is_good, &policy));
        let (well, ill) = (Some(true), Some(false));
        assert_eq!(found, [None, None, None, None, None, ill, ill, None, well]);
    }
}
