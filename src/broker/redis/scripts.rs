//! What runs inside the server: each script is one atomic step. Every key is declared, and all keys of one channel share
//! a hash tag.
//!
//! A channel's *meta* is a hash: `e` epoch, `t` top, `r` the replication id of the server that wrote last, `f` the forks
//! (`epoch:offset` with commas between, oldest first, at most 16), `n` when it is to be looked after next: what is too old
//! trimmed, the lifes of the keys renewed. A stream's entries have the ids `<offset>-<milliseconds>`.

use crate::redis::Script;

mod members;
mod nodes;
mod occupancy;
mod orders;

pub(super) use members::{JOIN, LEAVE, LEAVE_NODE, PRESENCE};
pub(super) use nodes::{ALIVE, ANNOUNCE, CHANNELS, COUNT, EXPIRED, FORGET, NODES, NOTE};
pub(super) use occupancy::{OCCUPY, VACATE};
pub(super) use orders::ORDER;

/// All of them.
pub(super) static ALL: &[&Script] = &[
    &PUBLISH,
    &PUBLISH_ONCE,
    &ENSURE,
    &READ,
    &JOIN,
    &LEAVE,
    &LEAVE_NODE,
    &PRESENCE,
    &ANNOUNCE,
    &NOTE,
    &OCCUPY,
    &VACATE,
    &NODES,
    &EXPIRED,
    &FORGET,
    &COUNT,
    &CHANNELS,
    &ALIVE,
    &ORDER,
    &PROBE,
];

/// Publishes in channels with history, any number of publications one after the other.
///
/// KEYS, of each publication: meta, stream, position, and with an idempotency key the one of that. ARGV: a fresh epoch for
/// all of them, then of each `size:ttl:ttl of the meta:for how long an idempotency key is remembered, or 0`, the rest
/// (MessagePack map) and the data.
/// Answers of each `epoch:top`, with `:1` behind it when it was a duplicate, or what went wrong in an array of its own.
///
/// In a busy fleet this is most of what the server does, so the lifes of the keys are renewed ten times in their length and not
/// by every publication, and numbers are formatted and MessagePack is made in the cheapest way that Lua 5.1 has.
pub static PUBLISH: Script = Script::of_many(
    r"local keys, args, call = KEYS, ARGV, redis.call
local format, char, sub = string.format, string.char, string.sub
local time = call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local stamp = '-' .. format('%.0f', now)
local replid = string.match(call('INFO', 'replication'), 'master_replid:(%w+)') or ''
local fresh, policies, heads = args[1], {}, {}
local function policy_of(word)
  local size, ttl, life, once = string.match(word, '^(%d+):(%d+):(%d+):(%d+)$')
  policies[word] = {size = size, ttl = tonumber(ttl), life = life, once = once ~= '0' and once}
  return policies[word]
end
local function high(n, by) return math.floor(n / by) % 256 end
-- How the head of a MessagePack text of this length is written.
local function head_of(length)
  local head
  if length < 32 then head = char(160 + length)
  elseif length < 256 then head = char(217, length)
  elseif length < 65536 then head = char(218, high(length, 256), length % 256)
  else head = char(219, high(length, 16777216), high(length, 65536), high(length, 256), length % 256) end
  heads[length] = head
  return head
end
local function packed(n)
  if n < 128 then return char(n) end
  if n < 256 then return char(204, n) end
  if n < 65536 then return char(205, high(n, 256), n % 256) end
  return cmsgpack.pack(n)
end
-- Takes away what is too old. When the oldest that is left was published.
local function trim(stream, ttl)
  local from = '-'
  while true do
    local some = call('XRANGE', stream, from, '+', 'COUNT', 64)
    for _, entry in ipairs(some) do
      local o, ms = string.match(entry[1], '^(%d+)-(%d+)$')
      if tonumber(ms) + ttl > now then
        call('XTRIM', stream, 'MINID', '=', o .. '-0')
        return tonumber(ms)
      end
      from = '(' .. entry[1]
    end
    if #some < 64 then return now end
  end
end
local answers, again = {}, {}
local function publish(k, a, policy)
  local meta_key, stream, once = keys[k], keys[k + 1], policy.once
  if once then
    local first = call('HMGET', keys[k + 3], 'e', 't')
    if first[1] then
      again[#answers + 1] = keys[k + 3]
      return first[1] .. ':' .. first[2] .. ':1'
    end
  end
  local meta = call('HMGET', meta_key, 'e', 'r', 'n')
  local epoch = meta[1]
  if not epoch then
    -- First what is refused without memory: then nothing was written.
    epoch = fresh
    call('HSET', meta_key, 'e', epoch, 't', 0, 'r', replid)
    call('DEL', stream)
  elseif meta[2] ~= replid or replid == '' then
    local known, forks = call('HMGET', meta_key, 't', 'f'), {}
    local top = tonumber(known[1])
    local first = call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    first = first and tonumber(string.match(first[1], '^%d+')) or top + 1
    for fork in string.gmatch(known[2] or '', '[^,]+') do
      local at = tonumber(string.match(fork, ':(%d+)$'))
      if at + 1 >= first then forks[#forks + 1] = fork end
    end
    if replid ~= '' then
      forks[#forks + 1] = epoch .. ':' .. format('%.0f', top)
      while #forks > 16 do table.remove(forks, 1) end
      epoch = fresh
      call('HSET', meta_key, 'e', epoch, 'r', replid, 'f', table.concat(forks, ','))
    end
  end
  local top = call('HINCRBY', meta_key, 't', 1)
  local offset = format(top < 2147483648 and '%d' or '%.0f', top)
  local rest, data, id = args[a + 1], args[a + 2], offset .. stamp
  local position = epoch .. ':' .. offset
  local is_due = not meta[3] or now >= tonumber(meta[3])
  if not call('XADD', stream, 'NOMKSTREAM', 'MAXLEN', '~', policy.size, id, 'd', data, 'm', rest) then
    call('XADD', stream, id, 'd', data, 'm', rest)
    is_due = true
  end
  if is_due or not call('SET', keys[k + 2], position, 'KEEPTTL', 'XX') then
    -- Renewed before a tenth of the time has passed, and then it has this tenth more: so it never ends too early.
    local ttl = policy.ttl
    local tenth = math.ceil(ttl / 10)
    local next = math.min(trim(stream, ttl) + ttl, now + tenth)
    call('HSET', meta_key, 'n', format('%.0f', next))
    call('PEXPIRE', stream, format('%.0f', ttl + tenth))
    call('PEXPIRE', meta_key, policy.life)
    call('SET', keys[k + 2], position, 'PX', policy.life)
  end
  if once then
    call('HSET', keys[k + 3], 'e', epoch, 't', offset)
    call('PEXPIRE', keys[k + 3], once)
  end
  call('PUBLISH', sub(meta_key, 1, -5) .. 'envelopes',
    '\134\161v\1\161k\161p\161e' .. (heads[#epoch] or head_of(#epoch)) .. epoch .. '\161o' .. packed(top) .. '\161m' .. rest
    .. '\161d' .. (heads[#data] or head_of(#data)) .. data)
  return position
end
local k = 1
for a = 2, #args, 3 do
  local policy = policies[args[a]] or policy_of(args[a])
  local done, answer = pcall(publish, k, a, policy)
  if not done then answer = {type(answer) == 'table' and answer.err or tostring(answer)} end
  answers[#answers + 1] = answer
  k = k + (policy.once and 4 or 3)
end
-- Written, though nothing changes: who waits for replicas waits for what its connection wrote. And written last: behind a first
-- write nothing is refused for want of memory.
for at, key in pairs(again) do
  local written = redis.pcall('PEXPIRE', key, call('PTTL', key))
  if type(written) == 'table' and written.err then answers[at] = {written.err} end
end
return answers",
);

/// Publishes in a channel without history, once for an idempotency key.
///
/// KEYS: idempotency. ARGV: the pub/sub channel, the envelope, for how long. Answers whether it was a duplicate.
pub(super) static PUBLISH_ONCE: Script = Script::new(
    r"if not redis.call('SET', KEYS[1], '', 'NX', 'PX', ARGV[3]) then return 1 end
redis.call('PUBLISH', ARGV[1], ARGV[2])
return 0",
);

/// Makes the meta of a channel that has none, with this epoch; a stream without meta is of nobody. And renews the life of one
/// that has less than two thirds of it left: whoever asks may be about to rely on it.
///
/// One that nothing was ever published in counts nothing, so it lives shorter. When it is gone, whoever comes back with its
/// epoch is told `recovered: false`, as with any epoch that is not known.
///
/// KEYS: meta, stream, position. ARGV: a fresh epoch, ttl of the meta, the same while nothing was published. Answers
/// `{epoch, top}`.
pub static ENSURE: Script = Script::new(
    r"local meta = redis.call('HMGET', KEYS[1], 'e', 't')
if meta[1] then
  local life = meta[2] == '0' and ARGV[3] or ARGV[2]
  if redis.call('PTTL', KEYS[1]) * 3 < tonumber(life) * 2 then
    redis.call('PEXPIRE', KEYS[1], life)
    redis.call('PEXPIRE', KEYS[3], life)
  end
  return meta
end
local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)') or ''
-- First what is refused without memory: behind the first write nothing is.
redis.call('HSET', KEYS[1], 'e', ARGV[1], 't', 0, 'r', replid)
redis.call('DEL', KEYS[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('SET', KEYS[3], ARGV[1] .. ':0', 'PX', ARGV[3])
return {ARGV[1], '0'}",
);

/// Reads; writes nothing.
///
/// KEYS: meta, stream. ARGV: the offset to read after, how many at most, how many bytes at most, how many the namespace
/// keeps, the epoch of the offset (empty: from the oldest when it is no longer kept).
/// Answers nil without a meta, else `{epoch, top, whether everything after the offset stands here, entries, fork}`: the
/// fork is the last offset that the reader's stream and this one have in common, when the reader is above it and
/// everything after it stands here, else -1.
pub static READ: Script = Script::new(
    r"local meta = redis.call('HMGET', KEYS[1], 'e', 't', 'f')
if not meta[1] then return false end
local epoch, top = meta[1], tonumber(meta[2])
local since = tonumber(ARGV[1])
local common = nil
if epoch == ARGV[5] then
  common = top
else
  for fork in string.gmatch(meta[3] or '', '[^,]+') do
    local e, at = string.match(fork, '^(.-):(%d+)$')
    if e == ARGV[5] then common = tonumber(at) break end
  end
end
local is_known = common ~= nil and since <= common
local floor = top - tonumber(ARGV[4])
local oldest = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
local first = oldest and tonumber(string.match(oldest[1], '^%d+')) or top + 1
if first <= floor then first = floor + 1 end
local fork = -1
if common and since > common and (common == top or first <= common + 1) then fork = common end
fork = string.format('%.0f', fork)
local stands = is_known and (since == top or first <= since + 1)
if not is_known and not (epoch == ARGV[5]) then since = 0 end
if since + 1 < first then since = first - 1 end
local entries = {}
local most, bytes = tonumber(ARGV[2]), tonumber(ARGV[3])
while since < top and #entries < most do
  local some = redis.call('XRANGE', KEYS[2], string.format('%.0f', since + 1), '+', 'COUNT', math.min(most - #entries, 128))
  if #some == 0 then break end
  for _, entry in ipairs(some) do
    bytes = bytes - #entry[2][2]
    if bytes < 0 and #entries > 0 then return {epoch, meta[2], stands and 1 or 0, entries, fork} end
    since = tonumber(string.match(entry[1], '^%d+'))
    entries[#entries + 1] = {string.format('%.0f', since), entry[2][2], entry[2][4]}
  end
end
return {epoch, meta[2], stands and 1 or 0, entries, fork}",
);

/// Tries every command that is needed, and leaves nothing behind. KEYS: a hash, a stream, a text, a sorted set, a set. ARGV: a
/// channel. Answers the commands that the user may not run there, each with what the server says.
pub(super) static PROBE: Script = Script::new(
    r"local hash, stream, text, ordered, set = unpack(KEYS)
local tries = {
  {'INFO', 'replication'}, {'TIME'}, {'PUBLISH', ARGV[1], ''},
  {'HSET', hash, 'a', '1'}, {'HSETNX', hash, 'a', '1'}, {'HGET', hash, 'a'}, {'HMGET', hash, 'a', 'b'},
  {'HGETALL', hash}, {'HSCAN', hash, '0'}, {'HINCRBY', hash, 'a', 1}, {'HEXISTS', hash, 'a'}, {'HLEN', hash}, {'HDEL', hash, 'a'},
  {'XADD', stream, '1-1', 'a', 'b'}, {'XRANGE', stream, '-', '+', 'COUNT', 1}, {'XTRIM', stream, 'MAXLEN', '1'},
  {'SET', text, 'a', 'PX', '1000'}, {'GET', text}, {'MGET', text}, {'PEXPIRE', text, '1000'}, {'PTTL', text},
  {'PERSIST', text},
  {'ZADD', ordered, 0, 'a'}, {'ZSCORE', ordered, 'a'}, {'ZRANGE', ordered, 0, 0}, {'ZREM', ordered, 'a'},
  {'ZRANGEBYSCORE', ordered, '-inf', '+inf'}, {'ZRANGEBYLEX', ordered, '-', '+'},
  {'SADD', set, 'a'}, {'SMEMBERS', set}, {'SREM', set, 'a'},
  {'DEL', hash, stream, text, ordered, set},
}
local refused = {}
for _, try in ipairs(tries) do
  local answer = redis.pcall(unpack(try))
  local why = type(answer) == 'table' and answer.err or ''
  -- Before 7.0 it begins with NOPERM, then it names the user executing the script, later the permissions and the ACL.
  if string.find(why, 'NOPERM') or string.find(why, 'executing the script') or string.find(why, 'ermission') then
    refused[#refused + 1] = try[1] .. ': ' .. why
  end
end
return refused",
);

/// What is asked for outside of scripts.
#[cfg(test)]
const PLAIN: [&str; 8] = [
    "PUBLISH", "DEL", "GET", "HGET", "MGET", "SMEMBERS", "SREM", "XRANGE",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_needed_is_tried_before_the_start() {
        let tries = |command: &str| PROBE.text().contains(&format!("{{'{command}'"));
        for script in ALL {
            let calls = script.text().split("call('").skip(1);
            for command in calls.filter_map(|call| call.split('\'').next()) {
                assert!(tries(command), "{command}");
            }
        }
        for command in PLAIN {
            assert!(tries(command), "{command}");
        }
    }
}
