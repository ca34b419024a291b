//! A Cluster: who has which slots, asked again and again, and what to do with commands that reached the wrong master.
//!
//! Each master has connections of its own, made and watched as those of a single server are. So a mark holds for one
//! master, a lost connection is a hole in that master's channels only, and no library decides what is sent again.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::client::Client;
use super::lane::{Answer, ask_kept, unanswered};
use super::pipeline::Pipeline;
use super::server::Server;
use super::target::{Host, Opened, Place, Target};
use super::topology::View;
use super::value::Value;
use super::{CallError, Command, Shared, Verdict, replicas, session};

/// Between two looks, when nothing hints at a change.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// The least time between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Between two attempts of a command that no master takes yet.
const PAUSE: Duration = Duration::from_millis(20);

/// The first version with sharded pub/sub.
pub(super) const SHARDS_SINCE: u64 = 7;

/// Looks at the Cluster for as long as the runtime lives.
pub(super) async fn watch(shared: Arc<Shared>) {
    let mut turn = 0;
    loop {
        if let Some(view) = look(&shared, turn).await {
            shared.adopt(&view);
        }
        turn += 1;
        tokio::time::sleep(LOOK_PAUSE).await;
        let _ = tokio::time::timeout(LOOK_INTERVAL, shared.look.notified()).await;
    }
}

/// What one of the masters says, a different one each time; when none is connected, one of those that were ever named.
async fn look(shared: &Shared, turn: usize) -> Option<View> {
    let servers = shared.servers();
    let connected: Vec<(Client, &Server)> = servers
        .iter()
        .filter_map(|server| Some((server.commands.client()?, &**server)))
        .collect();
    if !connected.is_empty() {
        let (client, server) = &connected[turn % connected.len()];
        return ask(client, &server.target).await.ok();
    }
    let known = servers.iter().map(|server| server.target.clone());
    let mut refused = None;
    for target in known.chain(seeds(&shared.target)) {
        if let Some(opened) = session::connect(shared, &target).await {
            let Opened {
                client,
                mut connection,
                ..
            } = opened;
            match connection.with(ask(&client, &target)).await {
                Ok(Ok(view)) => return Some(view),
                Ok(Err(why)) => refused = refused.or(why),
                Err(_) => {}
            }
        }
    }
    if let Some(why) = refused {
        shared.judge(Verdict::Refused(why));
    }
    None
}

/// The servers that the URL names, each by itself.
fn seeds(target: &Target) -> Vec<Target> {
    let Place::Cluster(hosts) = &target.place else {
        return vec![target.clone()];
    };
    let seeds = hosts.iter().map(|host| target.at(Place::of(host.clone())));
    seeds.collect()
}

/// The way to a master. One that is told by its number is known over TLS by the name of who told it.
pub(super) fn target_of(base: &Target, host: &Host) -> Target {
    let is_number = |name: &str| name.parse::<std::net::IpAddr>().is_ok();
    let named = match &base.place {
        Place::Cluster(hosts) => hosts.iter().find(|seed| !is_number(&seed.name)),
        _ => None,
    };
    let tls_name = named.filter(|_| is_number(&host.name));
    base.at(Place::Server {
        host: host.clone(),
        tls_name: tls_name.map(|seed| seed.name.clone()),
    })
}

/// The Cluster as a member sees it; or why trying again would not help, where that is known.
async fn ask(client: &Client, target: &Target) -> Result<View, Option<String>> {
    let mut pipeline = Pipeline::default();
    for word in ["INFO", "SLOTS"] {
        pipeline.add(&[&Command::new("CLUSTER").word(word)], false);
    }
    let answers = client.ask(pipeline).await;
    let answers: Result<Vec<Value>, CallError> = answers.into_iter().collect();
    let answers = answers.map_err(|error| {
        tracing::warn!(%error, "redis does not say who is in the cluster");
        refusal(&error)
    })?;
    let [info, slots] = <[Value; 2]>::try_from(answers).map_err(|_| None)?;
    let asked = match &target.place {
        Place::Server { host, .. } => host.name.clone(),
        _ => String::new(),
    };
    let info = info.as_string().unwrap_or_default();
    let view = view(&info, slots, &asked).ok_or(None)?;
    if view.ranges.is_empty() {
        tracing::warn!(
            member = asked,
            "no member of the redis cluster has any slots"
        );
    }
    Ok(view)
}

/// What a server says that will not say otherwise.
fn refusal(error: &CallError) -> Option<String> {
    let CallError::Refused(why) = error else {
        return None;
    };
    match why.contains("cluster support disabled") {
        true => Some(format!("it is no Cluster: say redis:// ({why})")),
        false => why.starts_with("NOPERM").then(|| format!("CLUSTER: {why}")),
    }
}

/// Reads `CLUSTER INFO` and `CLUSTER SLOTS`; `asked` is the host that answered, which it may leave out of itself.
fn view(info: &str, slots: Value, asked: &str) -> Option<View> {
    let epoch = info
        .lines()
        .find_map(|line| line.strip_prefix("cluster_current_epoch:"))?;
    let ranges: Option<Vec<_>> = slots
        .into_array()
        .into_iter()
        .map(|range| {
            let parts = range.into_array();
            let [from, to, master, ..] = parts.as_slice() else {
                return None;
            };
            let master = master.clone().into_array();
            let name = master.first()?.as_string().unwrap_or_default();
            let name = match name.as_str() {
                "" | "?" => asked.to_owned(),
                _ => name,
            };
            let number = |value: &Value| u16::try_from(value.as_u64()?).ok();
            let port = number(master.get(1)?)?;
            Some((number(from)?, number(to)?, Host { name, port }))
        })
        .collect();
    Some(View {
        epoch: epoch.trim().parse().ok()?,
        ranges: ranges?,
    })
}

/// What a master answers for something that another one has, or that is just being moved. It did nothing.
enum Redirect<'a> {
    Moved(&'a str),
    Ask(&'a str),
    TryAgain,
}

fn redirect(answer: &Answer) -> Option<Redirect<'_>> {
    let Err(CallError::Refused(why)) = answer else {
        return None;
    };
    let mut words = why.split(' ');
    match words.next()? {
        "MOVED" => Some(Redirect::Moved(words.nth(1)?)),
        "ASK" => Some(Redirect::Ask(words.nth(1)?)),
        "TRYAGAIN" => Some(Redirect::TryAgain),
        _ => None,
    }
}

/// Whether a command is to be sent to another master, or again.
pub(super) fn is_redirect(answer: &Answer) -> bool {
    redirect(answer).is_some()
}

/// Sends commands again that no master has taken yet, in their order, until the deadline.
pub(super) async fn follow(
    shared: &Shared,
    commands: &[Command],
    answers: &mut [Answer],
    deadline: Instant,
) {
    for (command, answer) in commands.iter().zip(answers) {
        if is_redirect(answer) {
            *answer = follow_one(shared, command, answer.clone(), deadline).await;
        }
    }
}

async fn follow_one(
    shared: &Shared,
    command: &Command,
    mut answer: Answer,
    deadline: Instant,
) -> Answer {
    let mut attempts = 0;
    while let Some(redirect) = redirect(&answer) {
        let (named, is_asking) = match redirect {
            Redirect::Moved(address) => (Some(address), false),
            Redirect::Ask(address) => (Some(address), true),
            Redirect::TryAgain => (None, false),
        };
        if !is_asking {
            shared.look.notify_one();
        }
        let named = named.and_then(|address| shared.server_at(address));
        if named.is_none() || attempts > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        attempts += 1;
        if Instant::now() >= deadline {
            // Nobody has done anything.
            return Err(CallError::NotSent);
        }
        let server = named.or_else(|| shared.server_of(command.key()));
        let Some((server, client)) = server.and_then(|server| {
            let client = server.commands.client()?;
            Some((server, client))
        }) else {
            continue;
        };
        let mut pipeline = Pipeline::default();
        if is_asking {
            pipeline.add(&[&Command::new("ASKING")], false);
        }
        pipeline.add_in_full(command, server.is_sharded());
        let wanted = match command.awaits_replicas() {
            true => shared.config.wait_replicas,
            false => 0,
        };
        let again = ask_kept(&client, pipeline, wanted);
        let again = tokio::time::timeout_at(deadline, again).await;
        let (mut answers, told) = again.unwrap_or_default();
        answer = answers
            .pop()
            .map_or_else(unanswered, |last| command.own_part(last));
        if let Some(told) = told {
            replicas::settle(shared, &server, std::slice::from_mut(&mut answer), &told);
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::from(text.to_owned())
    }

    fn range(from: i64, to: i64, host: Value, port: i64) -> Value {
        let master = Value::Array(vec![host, Value::Integer(port), text("id")]);
        Value::Array(vec![Value::Integer(from), Value::Integer(to), master])
    }

    #[test]
    fn a_view_is_read() {
        let info = "cluster_state:ok\r\ncluster_current_epoch:7\r\ncluster_my_epoch:3\r\n";
        let slots = Value::Array(vec![
            range(0, 5460, text("10.0.0.1"), 6379),
            range(5461, 16_383, Value::Null, 6380),
        ]);
        let view = view(info, slots, "asked").expect("a view");
        assert_eq!(view.epoch, 7);
        let host = |name: &str, port| Host {
            name: name.to_owned(),
            port,
        };
        assert_eq!(
            view.ranges,
            [
                (0, 5460, host("10.0.0.1", 6379)),
                (5461, 16_383, host("asked", 6380)),
            ]
        );
    }

    #[test]
    fn an_answer_that_is_no_view_is_none() {
        assert!(view("", Value::Array(Vec::new()), "").is_none());
        let info = "cluster_current_epoch:7";
        let odd = Value::Array(vec![Value::Array(vec![Value::Integer(1)])]);
        assert!(view(info, odd, "").is_none());
    }

    #[test]
    fn redirects_are_known() {
        let refused = |why: &str| Err(CallError::Refused(why.to_owned()));
        assert!(is_redirect(&refused("MOVED 3999 127.0.0.1:6381")));
        assert!(is_redirect(&refused("ASK 3999 127.0.0.1:6381")));
        assert!(is_redirect(&refused(
            "TRYAGAIN Multiple keys request during rehashing of slot"
        )));
        assert!(!is_redirect(&refused("MOVED")));
        assert!(!is_redirect(&refused("CLUSTERDOWN Hash slot not served")));
        assert!(!is_redirect(&Ok(Value::Integer(1))));
    }
}
