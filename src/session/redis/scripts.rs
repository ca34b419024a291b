//! The scripts of sessions: each does one thing wholly. All take the prefix of keys as their only key, because the other
//! keys follow from what they read; so all must be on one server (a Cluster: one hash tag).
//!
//! Times are milliseconds since 1970, in records seconds with a fraction.

use crate::redis::Script;

/// A script after the functions that all share.
macro_rules! script {
    ($text:literal) => {
        Script::new(concat!(include_str!("prelude.lua"), $text))
    };
}

/// Every script.
pub(super) const ALL: &[&Script] = &[
    &ADD_USER,
    &GET_USER,
    &ADOPT_USER,
    &REPLACE_PASSWORD,
    &SET_ROLE,
    &REMOVE_USER,
    &LIST_USERS,
    &LOG_IN,
    &ADD,
    &CHOOSE,
    &LIST,
    &SESSIONS,
    &END,
    &END_ALL,
    &TOUCH,
    &CONNECT,
    &DISCONNECT,
    &CONNECTIONS,
    &BEAT,
    &CLOCK,
    &SWEEP,
    &SHARED_SECRET,
    &ANNOUNCE,
];

/// ARGV: key, name, email, password, role, created, last login. Answers 1 when the name was free.
pub(super) static ADD_USER: Script = script!(
    r"
local prefix, key = KEYS[1], ARGV[1]
if redis.call('EXISTS', prefix .. 'users:' .. key) == 1 then return 0 end
redis.call('HSET', prefix .. 'users:' .. key, 'name', ARGV[2], 'email', ARGV[3], 'password', ARGV[4], 'role', ARGV[5],
  'created_at', seconds(tonumber(ARGV[6])), 'last_login', seconds(tonumber(ARGV[7])))
redis.call('ZADD', prefix .. 'idx:users', 0, key)
redis.call('ZADD', prefix .. 'idx:logins', ARGV[7], key)
return 1"
);

/// ARGV: key, the name as it was written. A user whom another system kept under the name as it was written moves to the
/// key, for good. Answers fields and values in turn.
pub(super) static GET_USER: Script = script!(
    r"
local prefix, key, name = KEYS[1], ARGV[1], ARGV[2]
local at, other = prefix .. 'users:' .. key, prefix .. 'users:' .. name
if key ~= name and redis.call('EXISTS', at) == 0 and redis.call('HEXISTS', other, 'password') == 1 then
  redis.call('RENAME', other, at)
  redis.call('HSETNX', at, 'name', name)
  redis.call('PERSIST', at)
end
return redis.call('HGETALL', at)"
);

/// ARGV: key, the name as another system wrote it, now. Answers 1 when the user was taken over, 2 when somebody else has the key.
pub(super) static ADOPT_USER: Script = script!(
    r"
local prefix, key, name = KEYS[1], ARGV[1], ARGV[2]
local at, other = prefix .. 'users:' .. key, prefix .. 'users:' .. name
if redis.call('HEXISTS', other, 'password') == 0 then return 0 end
if key ~= name then
  if redis.call('EXISTS', at) == 1 then return 2 end
  redis.call('RENAME', other, at)
end
if redis.call('ZSCORE', prefix .. 'idx:users', key) then return 0 end
redis.call('HSETNX', at, 'name', name)
redis.call('PERSIST', at)
redis.call('ZADD', prefix .. 'idx:users', 0, key)
redis.call('ZADD', prefix .. 'idx:logins', ARGV[3], key)
return 1"
);

/// ARGV: key, from, to. Answers 1 when it was replaced.
pub(super) static REPLACE_PASSWORD: Script = script!(
    r"
local at = KEYS[1] .. 'users:' .. ARGV[1]
if redis.call('HGET', at, 'password') ~= ARGV[2] then return 0 end
redis.call('HSET', at, 'password', ARGV[3])
return 1"
);

/// ARGV: key, role. Answers 1 when there is such a user.
pub(super) static SET_ROLE: Script = script!(
    r"
local at = KEYS[1] .. 'users:' .. ARGV[1]
if redis.call('EXISTS', at) == 0 then return 0 end
redis.call('HSET', at, 'role', ARGV[2])
return 1"
);

/// ARGV: key. Answers the ids of the sessions that ended; nothing when there is no such user.
pub(super) static REMOVE_USER: Script = script!(
    r"
local prefix, key = KEYS[1], ARGV[1]
local at = prefix .. 'users:' .. key
if redis.call('EXISTS', at) == 0 then return false end
local name = redis.call('HGET', at, 'name') or key
redis.call('DEL', at)
redis.call('ZREM', prefix .. 'idx:users', key)
redis.call('ZREM', prefix .. 'idx:logins', key)
return drop_all(prefix, name)"
);

/// ARGV: after which key, how many. Answers a list for each user: the key, then fields and values in turn.
pub(super) static LIST_USERS: Script = script!(
    r"
local prefix = KEYS[1]
local after = ARGV[1] == '' and '-' or '(' .. ARGV[1]
local users = {}
for _, key in ipairs(redis.call('ZRANGEBYLEX', prefix .. 'idx:users', after, '+', 'LIMIT', 0, ARGV[2])) do
  local fields = redis.call('HGETALL', prefix .. 'users:' .. key)
  table.insert(fields, 1, key)
  users[#users + 1] = fields
end
return users"
);

/// ARGV: user, id, record, head, last use, time-out, the most sessions, key, the hash of the password. Answers the role and the
/// ids of those that ended; nothing when the user is gone or has another hash.
pub(super) static LOG_IN: Script = script!(
    r"
local prefix, key, now = KEYS[1], ARGV[8], tonumber(ARGV[5])
local at = prefix .. 'users:' .. key
if redis.call('HGET', at, 'password') ~= ARGV[9] then return false end
redis.call('HSET', at, 'last_login', seconds(now))
redis.call('PERSIST', at)
redis.call('ZADD', prefix .. 'idx:users', 0, key)
redis.call('ZADD', prefix .. 'idx:logins', whole(now), key)
local role = redis.call('HGET', at, 'role') or 'user'
return {role, add(prefix, ARGV[1], ARGV[2], ARGV[3], ARGV[4], now, tonumber(ARGV[6]), tonumber(ARGV[7]))}"
);

/// ARGV: user, id, record, head, last use, time-out, the most sessions. Answers the ids of those that ended.
pub(super) static ADD: Script = script!(
    r"
return add(KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]))"
);

/// ARGV: as those of `ADD`, then the conversation, and the session of the login or nothing. Answers the id of the session that
/// there is, with what `read` says of it; or an empty text and the ids of those that ended.
pub(super) static CHOOSE: Script = script!(
    r#"
local prefix, user, now, timeout = KEYS[1], ARGV[1], tonumber(ARGV[5]), tonumber(ARGV[6])
local keys = of_user(prefix, user)

local function chat_of(head)
  local _, values = members(head)
  local chat = values['"chat_id"'] or 'null'
  return chat == 'null' and 'default' or text(chat)
end

local ids = redis.call('ZRANGEBYSCORE', keys.sessions, whole(now - timeout), '+inf')
for i = #ids, 1, -1 do
  local id = ids[i]
  local head = redis.call('HGET', keys.heads, id)
  local is_readable, chat = pcall(chat_of, head or '{}')
  if head and is_readable and chat == ARGV[8] then
    local owner, used, _, record = find(prefix, id)
    if owner == user then return {id, told(user, used, record)} end
  end
end
if ARGV[9] ~= '' then touch(prefix, keys, ARGV[9], now, timeout) end
local ended = add(prefix, user, ARGV[2], ARGV[3], ARGV[4], now, timeout, tonumber(ARGV[7]))
table.insert(ended, 1, '')
return ended"#
);

/// ARGV: user, alive since. Answers id, last use and head in turn.
pub(super) static LIST: Script = script!(
    r"
local keys = of_user(KEYS[1], ARGV[1])
local scored = redis.call('ZRANGEBYSCORE', keys.sessions, ARGV[2], '+inf', 'WITHSCORES')
local list = {}
for i = 1, #scored, 2 do
  local head = redis.call('HGET', keys.heads, scored[i])
  if head then
    list[#list + 1] = scored[i]
    list[#list + 1] = whole(tonumber(scored[i + 1]))
    list[#list + 1] = head
  end
end
return list"
);

/// Reads and updates of any number of sessions: one script, so that those that come at the same time are joined whatever they
/// want. ARGV: time-out, the most bytes of data and what channels of events begin with, with blanks between, then one after
/// the other
///
/// - `read`, id, whether the record is wanted (1): answers the length of the user's name in bytes, the last use, the name and
///   the record with a blank between the first three, an empty text, or `!` when nobody can read it;
/// - `update`, id, user, the conversation (JSON) or nothing, fields (JSON), now and node (JSON): answers what became of it in a
///   word, and tells those who listen when it is done.
pub(super) static SESSIONS: Script = Script::of_many(concat!(
    include_str!("prelude.lua"),
    r#"
local timeout, most, events = string.match(ARGV[1], '^(%d+) (%d+) (.*)$')
timeout, most = tonumber(timeout), tonumber(most)

local function merge(kept, changes)
  local names, values = members(kept)
  local added, changed = members(changes)
  for _, name in ipairs(added) do
    if not values[name] then names[#names + 1] = name end
    values[name] = changed[name]
  end
  for i, name in ipairs(names) do names[i] = name .. ':' .. values[name] end
  return '{' .. table.concat(names, ',') .. '}'
end

-- The data after the changes; nothing, and why.
local function merged(data, changes)
  local is_readable, after = pcall(merge, data, changes)
  if not is_readable then return nil, 'unreadable' end
  if #after > most then return nil, 'too_large' end
  return after
end

-- Within the second in which the session was used last nothing changes but the record, of which this stands before that time.
local function put_again(prefix, id, before, last, data)
  local record = before .. seconds(last) .. ',"data":' .. data .. '}'
  redis.call('SET', prefix .. 'sessions:' .. id, record, 'KEEPTTL')
end

local function put(prefix, id, user, kept, last, used, data)
  local rest = '"chat_id":' .. kept.chat .. ',"created_at":' .. kept.created .. ',"node":' .. kept.node
  local record = '{"user_id":' .. kept.user .. ',' .. rest .. ',"last_access":' .. seconds(last) .. ',"data":' .. data .. '}'
  redis.call('SET', prefix .. 'sessions:' .. id, record, 'PXAT', whole(last + timeout))
  local keys = of_user(prefix, user)
  if kept.is_elsewhere then
    index(keys, id, '{' .. rest .. '}', last, timeout)
  else
    renew(keys, id, used, last, timeout)
  end
end

local function update(prefix, id, by, chat_id, changes, now, node)
  local record = record_of(prefix, id)
  if not record then return record == false and 'garbage' or 'missing' end
  local before, user_json, chat, created, last_node, whole_seconds, fraction, data = string.match(record, ours)
  local user, last
  if before then
    user, last = string.sub(user_json, 2, -2), millis(whole_seconds .. fraction)
  else
    user, user_json, chat, created, last_node, last, data = parts_of_other(record)
    if not user then return 'garbage' end
    last = millis(last)
  end
  local stays = last_node == node and (chat_id == '' or chat_id == chat)
  local is_again = before and stays and tonumber(whole_seconds) == math.floor(now / 1000)
  local indexed = not is_again and tonumber(redis.call('ZSCORE', prefix .. 'idx:sessions:' .. user, id))
  local used = math.max(indexed or 0, last)
  if used + timeout < now then return 'missing' end
  if user ~= by then return 'not_owner' end
  local is_readable, merged = pcall(merge, data, changes)
  if not is_readable then return 'unreadable' end
  if #merged > most then return 'too_large' end
  if is_again then
    put_again(prefix, id, before, math.max(used, now), merged)
  else
    local kept = {user = user_json, chat = chat_id ~= '' and chat_id or chat or '"default"', created = created or seconds(now), node = node,
      is_elsewhere = not (stays and indexed and chat and created)}
    put(prefix, id, user, kept, math.max(used, now), used, merged)
  end
  local event = '{"gateway_id":' .. node .. ',"session_id":"' .. id .. '","user_id":' .. user_json .. '}'
  redis.call('PUBLISH', events .. 'events:session:update:' .. user, event)
  return 'done'
end

local answers, a = {}, 2
while ARGV[a] do
  local prefix = KEYS[#answers + 1]
  local fine, answer
  if ARGV[a] == 'read' then
    fine, answer = pcall(read, prefix, ARGV[a + 1], ARGV[a + 2])
    a = a + 3
  else
    fine, answer = pcall(update, prefix, ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4], tonumber(ARGV[a + 5]),
      ARGV[a + 6])
    a = a + 7
  end
  if not fine then answer = {type(answer) == 'table' and answer.err or tostring(answer)} end
  answers[#answers + 1] = answer
end
return answers"#
));

/// ARGV: id. Answers 1 when there was one.
pub(super) static END: Script = script!(
    r"
local user = find(KEYS[1], ARGV[1])
if user == false then return redis.call('DEL', KEYS[1] .. 'sessions:' .. ARGV[1]) end
if not user then return 0 end
drop(KEYS[1], of_user(KEYS[1], user), {ARGV[1]})
return 1"
);

/// ARGV: user. Answers the ids of those that ended.
pub(super) static END_ALL: Script = script!(r"return drop_all(KEYS[1], ARGV[1])");

/// ARGV: time-out, then id, user and time of use in turn. Answers the ids of those that are gone.
pub(super) static TOUCH: Script = script!(
    r"
local prefix, timeout, gone = KEYS[1], tonumber(ARGV[1]), {}
for i = 2, #ARGV, 3 do
  local id, keys, at = ARGV[i], of_user(prefix, ARGV[i + 1]), tonumber(ARGV[i + 2])
  if not touch(prefix, keys, id, at, timeout) and redis.call('EXISTS', prefix .. 'sessions:' .. id) == 0 then
    gone[#gone + 1] = id
  end
end
return gone"
);

/// ARGV: user, client, connection (JSON), session, node, now, time-out, process.
pub(super) static CONNECT: Script = script!(
    r"
local keys = of_user(KEYS[1], ARGV[1])
live(KEYS[1], ARGV[8], tonumber(ARGV[6]))
local at = whole(tonumber(ARGV[6]) + tonumber(ARGV[7]))
redis.call('HSET', keys.connections, ARGV[2], ARGV[3])
redis.call('HSET', keys.connection, 'session_id', ARGV[4], 'gateway_id', ARGV[5], 'ws_connected', '1', 'last_seen',
  seconds(tonumber(ARGV[6])))
redis.call('PEXPIREAT', keys.connections, at)
redis.call('PEXPIREAT', keys.connection, at)
return 1"
);

/// ARGV: user, alive since, until when it is kept without use, client.
pub(super) static DISCONNECT: Script = script!(
    r"
local keys = of_user(KEYS[1], ARGV[1])
redis.call('HDEL', keys.connections, ARGV[4])
local _, newest = sockets(KEYS[1], keys, tonumber(ARGV[2]))
show(keys, newest, ARGV[3])
return 1"
);

/// ARGV: user, alive since, until when it is kept without use. Answers clients and connections (JSON) in turn. What the FastAPI
/// gateway reads is set right where it names a socket that is gone.
pub(super) static CONNECTIONS: Script = script!(
    r"
local keys = of_user(KEYS[1], ARGV[1])
local told, newest, has_dead = sockets(KEYS[1], keys, tonumber(ARGV[2]))
local is_shown = redis.call('EXISTS', keys.connection) == 1
if has_dead or (newest and not is_shown) then show(keys, newest, ARGV[3]) end
return told"
);

/// ARGV: process, now, before when one is forgotten.
pub(super) static BEAT: Script = script!(
    r"
live(KEYS[1], ARGV[1], tonumber(ARGV[2]))
redis.call('ZREMRANGEBYSCORE', KEYS[1] .. 'idx:lives', '-inf', '(' .. ARGV[3])
return 1"
);

/// Answers the server's clock: seconds and microseconds.
pub(super) static CLOCK: Script = script!(r"return redis.call('TIME')");

/// ARGV: a secret. Answers the one that is kept.
pub(super) static SHARED_SECRET: Script = script!(
    r"
local at = KEYS[1] .. 'idx:secret'
local kept = redis.call('GET', at)
if kept then return kept end
redis.call('SET', at, ARGV[1])
return ARGV[1]"
);

/// Tells who listens. ARGV: the channel, the event.
pub(super) static ANNOUNCE: Script = Script::new("return redis.call('PUBLISH', ARGV[1], ARGV[2])");

/// ARGV: alive since, inactive since, the most users. Answers how many sessions went from the index, then the names of
/// the users who went.
pub(super) static SWEEP: Script = script!(
    r"
local prefix = KEYS[1]
local gone = {redis.call('ZREMRANGEBYSCORE', prefix .. 'idx:sessions', '-inf', '(' .. ARGV[1])}
local idle = redis.call('ZRANGEBYSCORE', prefix .. 'idx:logins', '-inf', '(' .. ARGV[2], 'LIMIT', 0, ARGV[3])
for _, key in ipairs(idle) do
  local at = prefix .. 'users:' .. key
  local name = redis.call('HGET', at, 'name') or key
  local keys = of_user(prefix, name)
  if redis.call('ZCOUNT', keys.sessions, ARGV[1], '+inf') == 0 then
    redis.call('DEL', at)
    redis.call('ZREM', prefix .. 'idx:users', key)
    redis.call('ZREM', prefix .. 'idx:logins', key)
    drop_all(prefix, name)
    gone[#gone + 1] = name
  end
end
return gone"
);
