//! Which nodes there are, by leases on Redis's clock, and what each says of itself.

use crate::redis::Script;

/// Renews a node's lease. KEYS: leases, infos, given up. ARGV: the node, for how long, its info, whether it was announced
/// before. When it was, and is not known any more, does nothing and answers 2 if it was given up, 0 if Redis lost it.
pub(in super::super) static ANNOUNCE: Script = Script::new(
    r"if ARGV[4] == '1' and redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then
  return redis.call('ZSCORE', KEYS[3], ARGV[1]) and 2 or 0
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return 1",
);

/// Says that a node is in channels, and gives it a lease when it has none yet. One that was not announced has an empty info
/// from then on: without it, it was given up.
///
/// KEYS: leases, the channels where the node is, infos. ARGV: the node, for how long, whether it was announced before, the
/// channels' tags (at most some thousand).
pub(in super::super) static NOTE: Script = Script::new(
    r"local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZADD', KEYS[1], 'NX', now + tonumber(ARGV[2]), ARGV[1])
if ARGV[3] == '0' then redis.call('HSETNX', KEYS[3], ARGV[1], '') end
return redis.call('SADD', KEYS[2], unpack(ARGV, 4))",
);

/// The infos of the nodes whose leases hold. KEYS: leases, infos. ARGV: `1` for those as well whose leases ended, as long as
/// nobody has given them up.
pub(in super::super) static NODES: Script = Script::new(
    r"local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local from = ARGV[1] == '1' and '-inf' or string.format('%.0f', now)
local infos = {}
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], from, '+inf')) do
  local info = redis.call('HGET', KEYS[2], node)
  if info then infos[#infos + 1] = info end
end
return infos",
);

/// The nodes whose leases hold. KEYS: leases. ARGV: as of [`NODES`].
pub(in super::super) static ALIVE: Script = Script::new(
    r"local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local from = ARGV[1] == '1' and '-inf' or string.format('%.0f', now)
return redis.call('ZRANGEBYSCORE', KEYS[1], from, '+inf')",
);

/// The nodes whose leases ended, for one reaper at a time. From now on they are given up: when they come back they
/// begin anew, and for a week it is known that they must.
///
/// KEYS: leases, lock, infos, given up. ARGV: who reaps, for how long.
pub(in super::super) static EXPIRED: Script = Script::new(
    r"local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. string.format('%.0f', now), 'LIMIT', 0, 16)
if #dead == 0 then return dead end
if not redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return {} end
for _, node in ipairs(dead) do
  redis.call('HDEL', KEYS[3], node)
  redis.call('ZADD', KEYS[4], now, node)
end
local week = string.format('%.0f', now - 604800000)
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', week, 'LIMIT', 0, 100)) do
  redis.call('ZREM', KEYS[4], node)
end
return dead",
);

/// Forgets a node that left nobody behind: one whose lease ended, or one that says so itself.
///
/// KEYS: leases, infos, the channels where it has members, its counts, their names, the channels that it occupies. ARGV: the node, `1` when it says so.
pub(in super::super) static FORGET: Script = Script::new(
    r"local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
if ARGV[2] ~= '1' and lease and tonumber(lease) >= now then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('DEL', KEYS[3], KEYS[4], KEYS[5], KEYS[6])
return 1",
);

/// How many subscribers a node has in channels. KEYS: its counts, their names. ARGV: a channel's tag and its count, and so
/// on; a count of 0 is none.
pub(in super::super) static COUNT: Script = Script::new(
    r"for at = 1, #ARGV, 2 do
  if ARGV[at + 1] == '0' then
    redis.call('HDEL', KEYS[1], ARGV[at])
    redis.call('ZREM', KEYS[2], ARGV[at])
  else
    redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
    redis.call('ZADD', KEYS[2], 0, ARGV[at])
  end
end
return #ARGV / 2",
);

/// Channels of a node in the order of their tags. KEYS: its counts, their names. ARGV: from, to (as of ZRANGEBYLEX), how
/// many. Answers a tag and its count, and so on.
pub(in super::super) static CHANNELS: Script = Script::new(
    r"local found = {}
for _, tag in ipairs(redis.call('ZRANGEBYLEX', KEYS[2], ARGV[1], ARGV[2], 'LIMIT', 0, ARGV[3])) do
  local count = redis.call('HGET', KEYS[1], tag)
  if count then
    found[#found + 1] = tag
    found[#found + 1] = count
  end
end
return found",
);
