//! One connection of a subscriber as an `EventSource` has it: it comes back with the last id and nothing else.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::client::{Client, Ended, PATIENCE, position};
use super::ledger::Position;

/// Reads events until the stream ends.
pub(super) async fn session(client: &Client, stream: TcpStream) -> Ended {
    let mut reader = BufReader::new(stream);
    let query: Vec<_> = client
        .channels
        .iter()
        .map(|name| format!("channel={name}"))
        .collect();
    let mut request = format!(
        "GET /sse/connect?{} HTTP/1.1\r\nhost: gateway\r\naccept: text/event-stream\r\n",
        query.join("&")
    );
    let id = client.last_id();
    if let Some(id) = &id {
        request.push_str(&format!("last-event-id: {id}\r\n"));
    }
    request.push_str("\r\n");
    reader.write_all(request.as_bytes()).await.ok()?;
    let head = tokio::time::timeout(PATIENCE, read_head(&mut reader)).await;
    if !head.ok()??.starts_with("HTTP/1.1 200 ") {
        return None;
    }
    let mut event = Event::default();
    loop {
        let mut line = String::new();
        if !matches!(reader.read_line(&mut line).await, Ok(1..)) {
            return None;
        }
        // A line that was cut off in the middle is none.
        let line = line.strip_suffix('\n')?;
        match line.split_once(": ").unwrap_or((line, "")) {
            ("", _) => take(client, std::mem::take(&mut event), id.is_some()),
            ("id", id) => event.id = Some(id.to_owned()),
            ("event", name) => event.name = Some(name.to_owned()),
            ("data", data) => event.data = Some(data.to_owned()),
            _ => {}
        }
    }
}

#[derive(Default)]
struct Event {
    id: Option<String>,
    name: Option<String>,
    data: Option<String>,
}

async fn read_head(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if !matches!(reader.read_line(&mut head).await, Ok(1..)) {
            return None;
        }
    }
    Some(head)
}

fn take(client: &Client, event: Event, is_resumed: bool) {
    let Some(data) = event.data else {
        return;
    };
    let message: Value = serde_json::from_str(&data).expect("JSON");
    let positions = event.id.as_deref().map(positions).unwrap_or_default();
    let channel = client.find(&message["channel"]);
    match event.name.as_deref() {
        None => {
            let at = channel.and_then(|channel| positions.get(channel)?.as_ref());
            let epoch = at.map(|at| at.epoch.clone());
            if at.map(|at| at.offset) != message["offset"].as_u64() {
                let what = format!("the id is {:?}, the data {message}", event.id);
                client.ledger(channel.unwrap_or_default()).faults.push(what);
            }
            client.publication(&message, epoch.as_deref());
        }
        Some("gap") => {
            for channel in channel.map_or(0..client.channels.len(), |one| one..one + 1) {
                client.ledger(channel).missed(position(&message));
            }
        }
        Some("connected") => {
            for (channel, name) in client.channels.iter().enumerate() {
                let mut ledger = client.ledger(channel);
                match is_resumed {
                    // It goes on where the id was, or is told of a gap. Without history nothing is promised.
                    true => ledger.missed(None),
                    false => ledger.started(position(&message["channels"][name])),
                }
            }
            client.connected();
        }
        Some(other) => client
            .ledger(0)
            .faults
            .push(format!("event {other}: {message}")),
    }
    if let Some(id) = event.id {
        client.keep_id(id);
    }
}

/// The positions of an id, in the order of the channels.
fn positions(id: &str) -> Vec<Option<Position>> {
    let list = id.rsplit_once('.').map_or(id, |(_, list)| list);
    let position = |text: &str| {
        let (epoch, offset) = text.split_once(':')?;
        Some(Position {
            epoch: epoch.into(),
            offset: offset.parse().ok()?,
        })
    };
    list.split(',').map(position).collect()
}

#[test]
fn ids_of_one_and_several_channels_are_read() {
    let at = |epoch: &str, offset| {
        let epoch = epoch.into();
        Some(Position { epoch, offset })
    };
    assert_eq!(positions("abc:7"), [at("abc", 7)]);
    assert_eq!(
        positions("1.00ff.abc:7,-,d:9"),
        [at("abc", 7), None, at("d", 9)]
    );
}
