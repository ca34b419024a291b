//! `fanfare sub`: follows channels of a running hub over WebSocket, and comes back by position when it is cut off.
//!
//! [`Follower`] is the conversation without the socket: messages in, lines out.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};

use super::dial::{Address, Trust};
use super::{CliError, hub};
use crate::model::{CloseReason, Reconnect};

/// The first wait before coming back; doubled each time, up to [`WAIT_MAX`].
const WAIT_MIN: Duration = Duration::from_millis(250);
const WAIT_MAX: Duration = Duration::from_secs(15);
/// How long nothing may come before the hub has told its ping interval.
const SILENCE_MAX: Duration = Duration::from_secs(75);

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The channels
    #[arg(required = true)]
    channels: Vec<String>,
    /// Where the hub is [default: HOST and PORT]
    #[arg(long)]
    url: Option<String>,
    /// The client's token
    #[arg(long)]
    token: Option<String>,
    /// End after so many publications
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Fail when the connection is cut off, rather than coming back
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    trust: Trust,
}

/// Prints until it is stopped, has enough, or the hub says no for good.
pub(super) fn run(options: &Options, out: &mut dyn Write) -> Result<(), CliError> {
    let url = hub::url_or_local(options.url.as_deref())?;
    let address = Address::parse(&url, &options.trust)?;
    let mut follower = Follower::new(&options.channels, options.count);
    hub::runtime()?.block_on(follow(options, &address, &mut follower, out))
}

async fn follow(
    options: &Options,
    address: &Address,
    follower: &mut Follower,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let mut wait = WAIT_MIN;
    loop {
        let before = follower.printed;
        let end = match converse(options, address, follower, out).await {
            Ok(End::Enough) => return Ok(()),
            Ok(End::CutOff(why)) => why,
            // The first attempt fails at once: an address that is wrong stays wrong.
            Err(error @ CliError::Unreachable { .. }) if follower.was_connected => {
                error.to_string()
            }
            Err(error) => return Err(error),
        };
        if options.once {
            return Err(address.unreachable(end));
        }
        if follower.printed > before {
            wait = WAIT_MIN;
        }
        note(&format!("{end}; coming back"));
        // Jitter: many clients that are cut off together must not come back together.
        tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
        wait = (wait * 2).min(WAIT_MAX);
    }
}

enum End {
    Enough,
    CutOff(String),
}

async fn converse(
    options: &Options,
    address: &Address,
    follower: &mut Follower,
    out: &mut dyn Write,
) -> Result<End, CliError> {
    let request = request(options, address)?;
    let opened = async {
        let stream = address.dial().await?;
        tokio_tungstenite::client_async(request, stream).await
    };
    let opened = tokio::time::timeout(hub::ANSWER_TIMEOUT, opened).await;
    let (mut socket, _) = opened
        .map_err(|_| address.unreachable("no answer in 10 s"))?
        .map_err(|error| refusal(&address.url, error))?;
    follower.was_connected = true;
    for message in follower.subscribes() {
        if let Err(error) = socket.send(Message::text(message)).await {
            return Ok(End::CutOff(error.to_string()));
        }
    }
    loop {
        let Ok(next) = tokio::time::timeout(follower.silence_max, socket.next()).await else {
            return Ok(End::CutOff("nothing came for too long".to_owned()));
        };
        match next {
            Some(Ok(Message::Text(text))) => follower.handle_message(text.as_str(), out)?,
            Some(Ok(Message::Close(frame))) => {
                let (code, reason) = frame.map_or((1005, String::new()), |frame| {
                    (u16::from(frame.code), frame.reason.to_string())
                });
                return closed(code, reason);
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Ok(End::CutOff(error.to_string())),
            None => return Ok(End::CutOff("the connection ended".to_owned())),
        }
        if follower.has_enough() || follower.has_no_channel() {
            let _ = socket.close(None).await;
        }
        if follower.has_enough() {
            return Ok(End::Enough);
        }
        if follower.has_no_channel() {
            return Err(CliError::NoChannel);
        }
        if let Some(why) = follower.trouble.take() {
            return Ok(End::CutOff(why));
        }
    }
}

/// The token goes into a header, where proxies do not log it.
fn request(options: &Options, address: &Address) -> Result<http::Request<()>, CliError> {
    let base = address.url.replacen("http", "ws", 1);
    let refused = |argument, rule: String| CliError::Argument { argument, rule };
    let mut request = format!("{base}/ws/connect")
        .into_client_request()
        .map_err(|error| refused("--url", error.to_string()))?;
    if let Some(token) = &options.token {
        let value = format!("Bearer {token}")
            .parse()
            .map_err(|_| refused("--token", "cannot stand in a header".to_owned()))?;
        request
            .headers_mut()
            .insert(http::header::AUTHORIZATION, value);
    }
    Ok(request)
}

fn refusal(url: &str, error: tungstenite::Error) -> CliError {
    let url = url.to_owned();
    match error {
        tungstenite::Error::Http(response) if response.status() != 503 => {
            let body = response.body().as_deref().unwrap_or_default();
            CliError::Refused {
                url,
                status: response.status().as_u16(),
                body: String::from_utf8_lossy(body).into_owned(),
            }
        }
        error => CliError::Unreachable {
            url,
            cause: error.to_string(),
        },
    }
}

/// Whether a close is worth coming back after; a code that is not ours is a proxy's, and worth a try.
fn closed(code: u16, reason: String) -> Result<End, CliError> {
    let ours = CloseReason::ALL.iter().find(|ours| ours.code() == code);
    match ours.map(|ours| ours.reconnect()) {
        Some(Reconnect::No | Reconnect::WithNewToken) => Err(CliError::Closed { code, reason }),
        _ => Ok(End::CutOff(format!("closed with {code} {reason}"))),
    }
}

fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "fanfare: {text}");
}

/// What the hub says, as far as it is looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said<'a> {
    #[serde(rename = "type")]
    kind: String,
    channel: String,
    offset: u64,
    epoch: Option<String>,
    recovered: Option<bool>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    dropped: Option<u64>,
    id: Option<usize>,
    code: Option<serde_json::Value>,
    message: String,
    reason: String,
    ping_interval: Option<f64>,
}

/// Which channels are followed, and how far each was seen.
struct Follower {
    channels: Vec<String>,
    /// Which of them the hub refused or ended.
    refused: BTreeSet<usize>,
    /// Why the hub could not do now what it may do later.
    trouble: Option<String>,
    positions: BTreeMap<String, (String, u64)>,
    count: Option<u64>,
    printed: u64,
    was_connected: bool,
    silence_max: Duration,
}

impl Follower {
    fn new(channels: &[String], count: Option<u64>) -> Self {
        Self {
            channels: channels.to_vec(),
            refused: BTreeSet::new(),
            trouble: None,
            positions: BTreeMap::new(),
            count,
            printed: 0,
            was_connected: false,
            silence_max: SILENCE_MAX,
        }
    }

    fn has_enough(&self) -> bool {
        self.count.is_some_and(|count| self.printed >= count)
    }

    fn has_no_channel(&self) -> bool {
        self.refused.len() == self.channels.len()
    }

    /// What to say after connecting: each channel, from where it was seen last. Its place is the command's id.
    fn subscribes(&self) -> Vec<String> {
        let subscribe = |(id, channel): (usize, &String)| match self.positions.get(channel) {
            Some((epoch, offset)) => json!({
                "type": "subscribe",
                "id": id,
                "channel": channel,
                "recover": { "epoch": epoch, "offset": offset },
            }),
            None => json!({ "type": "subscribe", "id": id, "channel": channel }),
        };
        let channels = self.channels.iter().enumerate();
        channels
            .filter(|(id, _)| !self.refused.contains(id))
            .map(|channel| subscribe(channel).to_string())
            .collect()
    }

    /// Prints a publication, remembers positions, and notes on the error stream what somebody should know.
    fn handle_message(&mut self, text: &str, out: &mut dyn Write) -> Result<(), CliError> {
        let Ok(said) = serde_json::from_str::<Said<'_>>(text) else {
            note(&format!("cannot read: {text}"));
            return Ok(());
        };
        match said.kind.as_str() {
            "publication" => self.print(&said, out)?,
            "subscribed" => {
                if said.recovered == Some(false) {
                    note(&format!("{}: what was missed is lost", said.channel));
                }
                self.remember(&said);
            }
            "gap" => {
                let dropped = said.dropped.map_or("some".to_owned(), |n| n.to_string());
                note(&format!("{}: {dropped} publications missed", said.channel));
                self.remember(&said);
            }
            "connected" => self.expect_pings(said.ping_interval),
            "error" => self.handle_error(&said),
            "unsubscribed" => {
                note(&format!("{}: {}", said.channel, said.reason));
                let ended = self.channels.iter().position(|name| *name == said.channel);
                self.refused.extend(ended);
            }
            _ => {}
        }
        Ok(())
    }

    /// A subscribe failed: for good, or because the hub has trouble.
    fn handle_error(&mut self, said: &Said<'_>) {
        let code = said.code.as_ref().and_then(serde_json::Value::as_str);
        let passes = [
            "broker_unavailable",
            "unavailable",
            "rate_limited",
            "internal",
        ];
        match said.id.filter(|id| *id < self.channels.len()) {
            Some(_) if code.is_some_and(|code| passes.contains(&code)) => {
                self.trouble = Some(said.message.clone());
            }
            Some(id) => {
                note(&format!("{}: {}", self.channels[id], said.message));
                self.refused.insert(id);
            }
            None => note(&said.message),
        }
    }

    fn print(&mut self, said: &Said<'_>, out: &mut dyn Write) -> Result<(), CliError> {
        if self.has_enough() {
            return Ok(());
        }
        let data = said.data.map_or("null", RawValue::get);
        writeln!(out, "{} {} {data}", said.channel, said.offset)?;
        out.flush()?;
        self.printed += 1;
        self.remember(said);
        Ok(())
    }

    /// A publication carries an epoch only when it changed; without history nothing has a position.
    fn remember(&mut self, said: &Said<'_>) {
        if let Some(epoch) = &said.epoch {
            let position = (epoch.clone(), said.offset);
            self.positions.insert(said.channel.clone(), position);
        } else if let Some((_, offset)) = self.positions.get_mut(&said.channel) {
            *offset = said.offset;
        }
    }

    /// Pings come at this interval: three of them missed means that nobody is there.
    fn expect_pings(&mut self, interval_seconds: Option<f64>) {
        if let Some(seconds) = interval_seconds.filter(|s| (0.001..86_400.0).contains(s)) {
            self.silence_max = Duration::from_secs_f64(seconds * 3.0 + 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follower(count: Option<u64>) -> Follower {
        Follower::new(&["news".to_owned(), "plain".to_owned()], count)
    }

    fn tell(follower: &mut Follower, messages: &[&str]) -> String {
        let mut out = Vec::new();
        for message in messages {
            follower
                .handle_message(message, &mut out)
                .expect("a writable vector");
        }
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn prints_a_line_for_each_publication_with_its_data_untouched() {
        let mut follower = follower(None);
        let printed = tell(
            &mut follower,
            &[
                r#"{"type":"subscribed","channel":"news","epoch":"E","offset":4}"#,
                r#"{"type":"publication","channel":"news","data":{"b":1.0,"a":"x"},"offset":5}"#,
                r#"{"type":"publication","channel":"plain","data":[1],"offset":0}"#,
                "nonsense",
                r#"{"type":"something new"}"#,
            ],
        );
        assert_eq!(printed, "news 5 {\"b\":1.0,\"a\":\"x\"}\nplain 0 [1]\n");
    }

    #[test]
    fn comes_back_from_where_it_was() {
        let mut follower = follower(None);
        assert_eq!(
            follower.subscribes(),
            [
                r#"{"channel":"news","id":0,"type":"subscribe"}"#,
                r#"{"channel":"plain","id":1,"type":"subscribe"}"#
            ]
        );
        tell(
            &mut follower,
            &[
                r#"{"type":"subscribed","channel":"news","epoch":"E","offset":4}"#,
                r#"{"type":"publication","channel":"news","data":1,"offset":5}"#,
                r#"{"type":"publication","channel":"plain","data":1,"offset":0}"#,
            ],
        );
        assert_eq!(
            follower.subscribes(),
            [
                r#"{"channel":"news","id":0,"recover":{"epoch":"E","offset":5},"type":"subscribe"}"#,
                r#"{"channel":"plain","id":1,"type":"subscribe"}"#
            ]
        );
        tell(
            &mut follower,
            &[r#"{"type":"publication","channel":"news","data":1,"offset":1,"epoch":"F"}"#],
        );
        assert!(follower.subscribes()[0].contains(r#"{"epoch":"F","offset":1}"#));
        tell(
            &mut follower,
            &[r#"{"type":"gap","channel":"news","dropped":null,"epoch":"F","offset":9}"#],
        );
        assert!(follower.subscribes()[0].contains(r#"{"epoch":"F","offset":9}"#));
    }

    #[test]
    fn what_is_refused_or_ended_is_followed_no_more_and_trouble_is_waited_out() {
        let mut follower = follower(None);
        tell(
            &mut follower,
            &[r#"{"type":"error","id":1,"code":"broker_unavailable","message":"away"}"#],
        );
        assert_eq!(follower.trouble.take().as_deref(), Some("away"));
        assert_eq!(follower.subscribes().len(), 2);
        tell(
            &mut follower,
            &[r#"{"type":"error","id":1,"code":"forbidden","message":"no"}"#],
        );
        assert_eq!((follower.subscribes().len(), &follower.trouble), (1, &None));
        assert!(!follower.has_no_channel());
        tell(
            &mut follower,
            &[r#"{"type":"unsubscribed","channel":"news","code":2500,"reason":"by the API"}"#],
        );
        assert!(follower.has_no_channel());
    }

    #[test]
    fn stops_when_it_has_enough() {
        let mut follower = follower(Some(1));
        let one = r#"{"type":"publication","channel":"news","data":1,"offset":5}"#;
        assert_eq!(tell(&mut follower, &[one, one]), "news 5 1\n");
        assert!(follower.has_enough());
    }

    #[test]
    fn close_codes_say_whether_to_come_back() {
        for code in [1001, 1006, 1011, 1012, 1013, 4004, 1005] {
            assert!(
                matches!(closed(code, String::new()), Ok(End::CutOff(_))),
                "{code}"
            );
        }
        for code in [1000, 1008, 1009, 4001, 4002, 4003] {
            assert!(closed(code, String::new()).is_err(), "{code}");
        }
    }

    #[test]
    fn waits_as_long_as_three_pings_may_take() {
        let mut follower = follower(None);
        tell(
            &mut follower,
            &[r#"{"type":"connected","ping_interval":25}"#],
        );
        assert_eq!(follower.silence_max, Duration::from_secs(76));
    }

    #[test]
    fn the_token_goes_into_a_header_not_into_the_address() {
        let options = Options {
            channels: Vec::new(),
            url: None,
            token: Some("secret".to_owned()),
            count: None,
            once: false,
            trust: Trust::default(),
        };
        let address = Address::parse("http://hub:1/", &options.trust).expect("an address");
        let request = request(&options, &address).expect("a request");
        assert_eq!(request.uri().to_string(), "ws://hub:1/ws/connect");
        assert_eq!(request.headers()["authorization"], "Bearer secret");
    }
}
