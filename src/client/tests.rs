//! One client's conversation, alone: what is permitted and in which words, and answers in the order of commands.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::auth::{Grants, Identity, Pattern};
use crate::model::{
    ChannelKey, ErrorCode, HistoryPolicy, Moment, Namespace, Namespaces, Payload, Permission,
};
use crate::protocol::{ClaimedPosition, Command, CommandId, Reply};

const UNIX: u64 = 1_000_000;

fn rules() -> Rules {
    let closed = Namespace {
        subscribe: Permission::Nobody,
        read_history: Permission::Nobody,
        read_presence: Permission::Nobody,
        ..Namespace::default_for(false)
    };
    let bare = Namespace {
        history: HistoryPolicy {
            size: 0,
            ttl: Duration::ZERO,
        },
        presence: false,
        publication_bytes_max: 10,
        ..Namespace::default_for(true)
    };
    let named = BTreeMap::from([("closed".to_owned(), closed), ("bare".to_owned(), bare)]);
    Rules {
        config: Config {
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(30),
            inactivity_timeout: Duration::from_secs(60),
            json_ping: false,
            channels_max: 3,
            command_rate: 0,
        },
        namespaces: Arc::new(Namespaces::new(Namespace::default_for(false), named)),
        gateway_id: Arc::from("node-1"),
    }
}

fn user(name: &str) -> Identity {
    Identity {
        user: Arc::from(name),
        role: Arc::from("user"),
        authenticated: true,
        ..Identity::anonymous()
    }
}

fn at(seconds: u64) -> Moment {
    Moment::from_millis(seconds * 1000)
}

fn client(identity: Identity) -> Client {
    Client::new(Arc::new(identity), None, &rules(), at(0), UNIX, 0.5)
}

fn key(name: &str) -> ChannelKey {
    ChannelKey::new(name).expect("a name")
}

fn subscribe(name: &str, presence: bool) -> Command {
    Command::Subscribe {
        channel: key(name),
        recover: None,
        presence,
    }
}

fn publish(name: &str, data: &str) -> Command {
    Command::Publish {
        channel: key(name),
        data: Payload::from_plain_json(data.to_owned()),
        key: None,
    }
}

fn history(name: &str) -> Command {
    Command::History {
        channel: key(name),
        limit: None,
        since: None,
    }
}

fn presence(name: &str) -> Command {
    Command::Presence { channel: key(name) }
}

/// What becomes of a command of a client that is subscribed to `has`.
fn step(client: &mut Client, command: Command, has: &[&str]) -> Step {
    let is_subscribed = |channel: &ChannelKey| has.contains(&channel.name());
    client.handle(command, has.len(), is_subscribed, &rules(), 1.5)
}

fn refused(client: &mut Client, command: Command, has: &[&str]) -> (ErrorCode, String) {
    match step(client, command, has) {
        Step::Answer(Reply::Error { code, message }) => (code, message),
        other => panic!("{other:?}"),
    }
}

// --- what is permitted ---

#[test]
fn what_a_back_end_granted_lasts_as_long_as_the_subscription() {
    let mut ann = client(user("ann"));
    let channel = key("closed:a");
    ann.grant(channel.clone());
    assert!(ann.may_keep(&channel, &rules()));
    ann.end_grant(&channel);
    assert!(!ann.may_keep(&channel, &rules()));
}

#[test]
fn what_is_not_permitted_is_answered_in_the_words_of_old() {
    let mut ann = client(user("ann"));
    for (command, what) in [
        (subscribe("closed:a", false), "subscribe"),
        (publish("news", "1"), "publish"),
        (history("closed:a"), "history"),
        (presence("closed:a"), "presence"),
    ] {
        let text = format!("Unauthorized: role 'user' cannot send '{what}'");
        assert_eq!(
            refused(&mut ann, command, &[]),
            (ErrorCode::Forbidden, text)
        );
    }
    let kind = Command::Unknown {
        kind: "chat_message".into(),
    };
    let text = "Unknown message type: chat_message".to_owned();
    assert_eq!(refused(&mut ann, kind, &[]), (ErrorCode::BadRequest, text));
}

#[test]
fn what_is_permitted_is_asked() {
    let mut ann = client(user("ann"));
    for command in [subscribe("news", false), history("news"), presence("news")] {
        let step = step(&mut ann, command, &[]);
        assert!(matches!(step, Step::Ask(_)), "{step:?}");
    }
    let mut granted = client(Identity {
        grants: Some(Box::new(Grants {
            publish: vec![Pattern::new("ne*")],
            ..Grants::default()
        })),
        ..user("ann")
    });
    let asked = step(&mut granted, publish("news", "1"), &[]);
    assert!(matches!(asked, Step::Ask(Question::Publish { .. })));
    let refused = refused(&mut granted, subscribe("news", false), &[]);
    assert_eq!(refused.0, ErrorCode::Forbidden);
}

#[test]
fn what_the_namespace_does_not_have_or_is_too_large_is_refused_plainly() {
    let mut ann = client(user("ann"));
    let code = |client: &mut Client, command| refused(client, command, &[]).0;
    assert_eq!(code(&mut ann, history("bare:a")), ErrorCode::NotAvailable);
    assert_eq!(code(&mut ann, presence("bare:a")), ErrorCode::NotAvailable);
    let large = publish("bare:a", "12345678901");
    assert_eq!(code(&mut ann, large), ErrorCode::TooLarge);
    let fits = step(&mut ann, publish("bare:a", "1234567890"), &[]);
    assert!(matches!(fits, Step::Ask(_)));
}

#[test]
fn a_subscription_is_had_once_ended_once_and_not_without_end() {
    let mut ann = client(user("ann"));
    let has = ["a", "b"];
    let twice = refused(&mut ann, subscribe("a", false), &has);
    assert_eq!(twice.0, ErrorCode::AlreadySubscribed);
    let third = step(&mut ann, subscribe("c", false), &has);
    assert!(matches!(third, Step::Ask(_)));
    let fourth = refused(&mut ann, subscribe("d", false), &["a", "b", "c"]);
    assert_eq!(fourth.0, ErrorCode::TooManyChannels);
    let unsubscribe = |name| Command::Unsubscribe { channel: key(name) };
    let none = refused(&mut ann, unsubscribe("c"), &has);
    assert_eq!(none.0, ErrorCode::NotSubscribed);
    let ends = step(&mut ann, unsubscribe("a"), &has);
    assert!(matches!(ends, Step::Ask(Question::Unsubscribe { .. })));
}

#[test]
fn watching_needs_a_namespace_that_tells_and_the_right_to_read() {
    let watches = |identity, name| {
        let mut client = client(identity);
        match step(&mut client, subscribe(name, true), &[]) {
            Step::Ask(Question::Subscribe { watches, .. }) => watches,
            other => panic!("{other:?}"),
        }
    };
    assert!(watches(user("ann"), "news"));
    assert!(!watches(user("ann"), "bare:a"));
    let subscribes_only = Identity {
        grants: Some(Box::new(Grants {
            subscribe: vec![Pattern::new("*")],
            ..Grants::default()
        })),
        ..user("ann")
    };
    assert!(!watches(subscribes_only, "news"));
}

/// A client whose token filled its channels could not restart one of them at its position: it was told that it has too
/// many, and what it missed was lost to it.
#[test]
fn a_channel_of_the_token_restarts_at_a_position_though_there_is_no_room_for_another() {
    let mut ann = client(Identity {
        channels: vec![key("a"), key("b"), key("c")],
        ..user("ann")
    });
    let has = ["a", "b", "c"];
    let restart = Command::Subscribe {
        channel: key("a"),
        recover: Some(ClaimedPosition {
            epoch: None,
            offset: 7,
        }),
        presence: false,
    };
    let step = step(&mut ann, restart, &has);
    assert!(
        matches!(step, Step::Ask(Question::Subscribe { .. })),
        "{step:?}"
    );
    let twice = refused(&mut ann, subscribe("a", false), &has);
    assert_eq!(twice.0, ErrorCode::AlreadySubscribed);
}

/// They were judged by a rule of their own, which let somebody without a name into a channel for nobody's users.
#[test]
fn the_tokens_channels_are_those_that_it_may_have() {
    let ann = client(Identity {
        channels: ["a", "room#ann", "room#bob", "b", "c"].map(key).to_vec(),
        ..user("ann")
    });
    assert_eq!(ann.own_channels(&rules()), ["a", "room#ann", "b"].map(key));
    let nobody = client(Identity {
        channels: vec![key("room#"), key("a")],
        ..user("")
    });
    assert_eq!(nobody.own_channels(&rules()), [key("a")]);
}

// --- time ---

#[test]
fn commands_over_the_rate_are_refused_and_come_again_with_time() {
    let mut rules = rules();
    rules.config.command_rate = 2;
    let identity = Arc::new(user("ann"));
    let mut ann = Client::new(identity, None, &rules, at(0), UNIX, 0.5);
    let mut admitted = |now| (0..5).filter(|_| ann.admit(now, &rules).is_ok()).count();
    assert_eq!(admitted(at(0)), 2);
    assert_eq!(admitted(Moment::from_millis(500)), 1);
    assert_eq!(admitted(at(100)), 2, "not more than the burst");
    let refusal = ann.admit(at(100), &rules).expect_err("no more");
    let Reply::Error { code, message } = refusal else {
        panic!("{refusal:?}");
    };
    assert_eq!(code, ErrorCode::RateLimited);
    assert_eq!(message, "over 2 commands a second");
}

#[test]
fn a_token_ends_when_it_says_unless_the_same_user_brings_another() {
    let until = |seconds| Identity {
        expires_at: Some(UNIX + seconds),
        ..user("ann")
    };
    let mut ann = client(until(20));
    assert_eq!(ann.expires_in(at(5)), Some(15));
    assert!(!ann.is_expired(Moment::from_millis(19_999)));
    assert!(ann.is_expired(at(20)));
    let mallory = Arc::new(Identity {
        expires_at: None,
        ..user("mallory")
    });
    assert_eq!(ann.refresh(mallory, at(10), UNIX + 10), None);
    assert_eq!(ann.expires_in(at(10)), Some(10), "as before");
    let refreshed = ann.refresh(Arc::new(until(50)), at(10), UNIX + 10);
    let expires_in = Some(40);
    assert_eq!(refreshed, Some(Reply::Refreshed { expires_in }));
    assert!(!ann.is_expired(at(49)));
    let endless = ann.refresh(Arc::new(user("ann")), at(10), UNIX + 10);
    assert_eq!(endless, Some(Reply::Refreshed { expires_in: None }));
    assert!(!ann.is_expired(at(1 << 40)));
}

#[test]
fn the_end_of_a_token_is_a_deadline() {
    let mut ann = client(Identity {
        expires_at: Some(UNIX + 3),
        ..user("ann")
    });
    assert_eq!(ann.next_deadline(&rules()), at(3));
    assert_eq!(
        ann.heartbeat().next_deadline(&rules().config),
        Moment::from_millis(18_750)
    );
}

#[test]
fn a_token_that_ended_before_it_came_is_over_at_once() {
    let late = client(Identity {
        expires_at: Some(UNIX - 1),
        ..user("ann")
    });
    assert!(late.is_expired(at(0)));
}

// --- the order of answers ---

fn id(number: i64) -> Option<CommandId> {
    Some(CommandId::Integer(number))
}

fn pong(number: i64) -> Reply {
    Reply::Pong {
        timestamp: number as f64,
    }
}

/// The numbers of the answers, each checked to be its command's own.
fn numbers(completion: Completion) -> Vec<i64> {
    let number = |answer: Answer| match (answer.id, answer.reply) {
        (Some(CommandId::Integer(number)), Reply::Pong { timestamp }) => {
            assert_eq!(timestamp, number as f64, "another command's answer");
            number
        }
        other => panic!("{other:?}"),
    };
    completion.answers.into_iter().map(number).collect()
}

#[test]
fn a_barrier_waits_for_every_answer_and_others_for_room() {
    let mut ann = client(user("ann"));
    assert!(ann.can_take(true));
    let first = ann.open(id(0));
    assert!(ann.can_take(false) && !ann.can_take(true));
    let tickets: Vec<_> = (1..64).map(|number| ann.open(id(number))).collect();
    assert!(!ann.can_take(false), "64 are open");
    ann.complete(tickets[0], pong(1));
    assert!(!ann.can_take(false), "the first is still open");
    ann.complete(first, pong(0));
    assert!(ann.can_take(false) && !ann.can_take(true));
    for (number, ticket) in (2..).zip(&tickets[1..]) {
        ann.complete(*ticket, pong(number));
    }
    assert!(ann.can_take(true));
    let channel = key("a");
    for (question, is_barrier) in [
        (Question::Presence { channel: key("a") }, false),
        (Question::Unsubscribe { channel }, true),
        (Question::Refresh { token: "t".into() }, true),
    ] {
        assert_eq!(question.is_barrier(), is_barrier, "{question:?}");
    }
}

/// Answers that are known at once wait behind an open question; a client that went on sending pings while the broker was
/// slow filled memory with pongs, and nothing bounded them.
#[test]
fn who_has_too_many_answers_waiting_is_not_read_on() {
    let mut ann = client(user("ann"));
    assert!(ann.may_read_on());
    let ticket = ann.open(id(0));
    for number in 1..64 {
        assert!(ann.may_read_on());
        assert!(numbers(ann.answer(id(number), pong(number))).is_empty());
    }
    assert!(!ann.may_read_on());
    let all: Vec<i64> = (0..64).collect();
    assert_eq!(numbers(ann.complete(ticket, pong(0))), all);
    assert!(ann.may_read_on());
}

/// An answer that came twice was put in the place of the first that was still open.
#[test]
fn a_second_answer_to_one_question_is_nobodys() {
    let mut ann = client(user("ann"));
    let (first, second) = (ann.open(id(0)), ann.open(id(1)));
    assert_eq!(numbers(ann.complete(first, pong(0))), [0]);
    assert!(numbers(ann.complete(first, pong(0))).is_empty());
    assert_eq!(numbers(ann.complete(second, pong(1))), [1]);
}

proptest! {
    #[test]
    fn answers_come_in_command_order_whatever_order_completions_come_in(
        steps in prop::collection::vec((0..3u8, 0..8usize), 1..200),
    ) {
        let mut ann = client(user("ann"));
        let (mut asked, mut answered) = (0, Vec::new());
        let mut open = VecDeque::new();
        for (kind, which) in steps {
            match kind {
                0 => {
                    open.push_back((asked, ann.open(id(asked))));
                    asked += 1;
                }
                1 => {
                    answered.extend(numbers(ann.answer(id(asked), pong(asked))));
                    asked += 1;
                }
                _ => {
                    let at = which % open.len().max(1);
                    if let Some((number, ticket)) = open.remove(at) {
                        answered.extend(numbers(ann.complete(ticket, pong(number))));
                    }
                }
            }
            // Nothing that could be answered is kept back.
            let first_open = open.iter().map(|(number, _)| *number).min().unwrap_or(asked);
            prop_assert_eq!(answered.len() as i64, first_open);
        }
        let expected: Vec<i64> = (0..answered.len() as i64).collect();
        prop_assert_eq!(answered, expected);
    }
}

#[test]
fn a_client_costs_at_most_128_bytes() {
    assert!(size_of::<Client>() <= 128, "{}", size_of::<Client>());
}
