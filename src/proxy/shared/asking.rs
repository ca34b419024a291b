//! How an upstream is asked for a stream that many share: chosen, dialled, and another one when that fails, as for any other
//! request.

use std::io;
use std::sync::Arc;

use tokio::time::{Instant, timeout};

use super::Proxy;
use super::answer::Answer;
use super::source::{Phase, Source};
use crate::proxy::attempt::Attempt;
use crate::proxy::cause::Cause;
use crate::proxy::choosing::Wish;
use crate::proxy::dialling::Way;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::hash;
use crate::proxy::multiplexed::{Bounds, DialError};
use crate::proxy::table::Route;
use crate::telemetry::proxy::Carried;

impl Source {
    /// The stream after `last_id`, or why there is none.
    pub(super) async fn open(&self, proxy: &Proxy, last_id: Option<&str>) -> Result<Answer, Phase> {
        let Some(route) = proxy.table.load().service(&self.service).cloned() else {
            return Err(Phase::Gone);
        };
        route.budget.requested(proxy.now());
        let retries = &route.policy.retries;
        let (mut tried, mut failure) = (Vec::new(), Phase::Overloaded);
        let members = u32::try_from(route.members.len()).unwrap_or(u32::MAX);
        for left in (0..retries.tries.min(members).max(1)).rev() {
            let now = proxy.now();
            let wish = Wish {
                now,
                tried: &tried,
                key: hash::of(self.target.as_bytes()),
            };
            if !tried.is_empty() && !route.has_another(&wish) {
                break;
            }
            let Some((endpoint, pass)) = route.choose(&wish) else {
                break;
            };
            let attempt = Attempt::begin(endpoint.clone(), pass, Carried::Sse, now);
            tried.push(endpoint.id);
            let may_repeat = || left > 0 && route.budget.may_retry(retries.budget_percent, now);
            match self.ask(proxy, &route, attempt, (last_id, left == 0)).await {
                Ok(answer) if answer.is_events() => return Ok(answer),
                Ok(answer) => {
                    let is_worth_another = retries.statuses.contains(&answer.status());
                    failure = refused(answer, &route).await;
                    if !is_worth_another || !may_repeat() {
                        break;
                    }
                }
                Err(phase) => {
                    let in_time = phase != Phase::TimedOut || retries.try_timeout.is_some();
                    failure = phase;
                    if !in_time || !may_repeat() {
                        break;
                    }
                }
            }
        }
        Err(failure)
    }

    async fn ask(
        &self,
        proxy: &Proxy,
        route: &Arc<Route>,
        mut attempt: Attempt,
        (last_id, is_last): (Option<&str>, bool),
    ) -> Result<Answer, Phase> {
        let policy = &route.policy;
        let most = policy.retries.try_timeout.filter(|_| !is_last);
        let patience = most.map_or(policy.timeout, |most| most.min(policy.timeout));
        let (began, endpoint) = (Instant::now(), attempt.endpoint.clone());
        let connector = proxy.connector.load_full();
        let dialling = endpoint.dial(connector.as_deref(), Way::Any, Bounds::of(policy));
        let mut failed = |cause: Cause<'_>, phase| {
            attempt.failed(&cause, proxy.now());
            Err(phase)
        };
        let socket = match dialling.await {
            Ok(dialled) => dialled.socket,
            Err(DialError::Full) => return Err(Phase::Overloaded),
            Err(DialError::TimedOut) => return failed(Cause::NoConnectionInTime, Phase::TimedOut),
            Err(DialError::Failed(error)) => {
                return failed(Cause::NoConnection(&error), Phase::Unavailable);
            }
        };
        let head = self.head_for(&endpoint, last_id);
        match timeout(patience, Answer::ask(socket, &head)).await {
            Ok(Ok(mut answer)) => {
                attempt.answered(&answer.verdict(), began.elapsed(), proxy.now());
                answer.attempt = Some(attempt);
                Ok(answer)
            }
            Ok(Err(error)) if error.kind() != io::ErrorKind::TimedOut => {
                failed(Cause::NoAnswer(&error), Phase::Unavailable)
            }
            _ => failed(Cause::NoAnswerInTime, Phase::TimedOut),
        }
    }

    fn head_for(&self, endpoint: &Endpoint, last_id: Option<&str>) -> Vec<u8> {
        let (base, target) = (&endpoint.address.base, &self.target);
        let mut head = format!("GET {base}{target} HTTP/1.1\r\nhost: ").into_bytes();
        head.extend_from_slice(endpoint.authority.as_bytes());
        head.extend_from_slice(b"\r\n");
        head.extend_from_slice(&self.fields);
        // An id is the rest of a line, so it has no line end; what else may not stand in a field is not sent.
        if let Some(id) = last_id.filter(|id| !id.contains(|c: char| c.is_control())) {
            head.extend_from_slice(format!("last-event-id: {id}\r\n").as_bytes());
        }
        head.extend_from_slice(b"\r\n");
        head
    }
}

/// An answer that is no stream of events, as those who ask get it.
async fn refused(answer: Answer, route: &Route) -> Phase {
    let status = answer.status();
    match answer.refusal(route.policy.timeout).await {
        Some(refusal) => Phase::Refused(Arc::new(refusal)),
        None => Phase::Unfit(status),
    }
}
