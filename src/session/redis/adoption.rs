//! Users whom the FastAPI gateway kept: under the name as it was written, for some hours, in no index.

use super::asking::fault;
use super::{RedisStore, scripts};
use crate::redis::{CallError, Command, Value};
use crate::session::{Store as _, StoreError, UserName};

/// What Redis looks at in one step, whose users are one pipeline.
const STEP: u64 = 256;

/// Takes over all that there are. Answers how many.
pub(super) async fn adopt(store: &RedisStore) -> Result<usize, StoreError> {
    // In a Cluster our keys are held together in a way that no other system has.
    if store.redis.is_cluster() {
        return Ok(0);
    }
    let users = format!("{}users:", store.prefix);
    let (mut cursor, mut adopted) = ("0".to_owned(), 0);
    loop {
        let command = Command::new("SCAN")
            .word(&cursor)
            .word("MATCH")
            .word(format!("{}*", escaped(&users)))
            .word("COUNT")
            .number(STEP)
            .word("TYPE")
            .word("hash");
        let answer = match store.redis.call_one(command).await {
            Ok(answer) => answer,
            // It will not allow that the next time either.
            Err(CallError::Refused(why)) => {
                tracing::warn!(why, "users of another system are not looked for");
                return Ok(adopted);
            }
            Err(error) => return Err(fault(error)),
        };
        let (next, keys) = page(answer).ok_or(StoreError::Unavailable)?;
        let names = keys.iter().filter_map(|key| key.strip_prefix(&users));
        adopted += adopt_these(store, names).await?;
        if next == "0" {
            return Ok(adopted);
        }
        cursor = next;
    }
}

async fn adopt_these<'a>(
    store: &RedisStore,
    names: impl Iterator<Item = &'a str>,
) -> Result<usize, StoreError> {
    let users = names.filter_map(|name| Some((name, UserName::new(name).ok()?)));
    let users: Vec<_> = users.collect();
    let now = store.now().as_millis();
    let commands = users.iter().map(|(name, user)| {
        let command = store.script(&scripts::ADOPT_USER).word(user.key());
        command.word(name).number(now)
    });
    let answers = store.redis.call(commands.collect()).await;
    let mut adopted = 0;
    for ((name, _), answer) in users.iter().zip(answers) {
        match answer.map_err(fault)?.as_u64() {
            Some(1) => adopted += 1,
            Some(2) => tracing::warn!(
                name,
                "a user of another system cannot be taken over: another one has the name in another spelling"
            ),
            _ => {}
        }
    }
    Ok(adopted)
}

/// A text that a pattern takes as it is.
fn escaped(text: &str) -> String {
    let special = |character: &char| matches!(character, '*' | '?' | '[' | ']' | '\\');
    text.chars()
        .flat_map(|character| {
            let escape = special(&character).then_some('\\');
            escape.into_iter().chain([character])
        })
        .collect()
}

/// Where the next step begins, and the keys of this one.
fn page(answer: Value) -> Option<(String, Vec<String>)> {
    let mut parts = answer.into_array().into_iter();
    let (cursor, keys) = (parts.next()?, parts.next()?);
    // A key that is no text is no user of anybody's.
    let keys = keys
        .into_array()
        .into_iter()
        .filter_map(|key| key.as_string());
    Some((cursor.as_string()?, keys.collect()))
}
