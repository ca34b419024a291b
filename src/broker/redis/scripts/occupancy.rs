//! Which nodes have subscribers of a channel, so that the first and the last one are told once for the fleet.

use crate::redis::Script;

/// A node has subscribers in a channel. The hash of a channel has a field for each such node, and three more: `i` its life, `b`
/// the node that made it begin or end (`!` before it: somebody else, after its lease had ended), `a` when that was. One of an
/// end stays for a minute, so that whoever asks again hears the same.
///
/// KEYS: occupants. ARGV: the node, a fresh life, the life that the node knows (or nothing), the name that it had there before
/// (or nothing). Answers `{life, 1}` to the one that is to tell that the channel is occupied, else `{life, 0}`.
pub(in super::super) static OCCUPY: Script = Script::new(
    r"local node, known, former = ARGV[1], ARGV[3], ARGV[4]
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
local found = redis.call('HMGET', KEYS[1], 'i', 'b')
local life, by = found[1], found[2]
if not life and known ~= '' then
  -- Redis lost it: nothing has begun.
  redis.call('HSET', KEYS[1], 'i', known, 'b', '', 'a', now, node, '')
  return {known, 0}
end
if life and former ~= '' and redis.call('HEXISTS', KEYS[1], former) == 1 then
  -- First what is refused without memory: behind the first write nothing is.
  redis.call('HSET', KEYS[1], node, '')
  redis.call('HDEL', KEYS[1], former)
  if by == former then
    by = node
    redis.call('HSET', KEYS[1], 'b', node)
  end
end
if life and redis.call('HLEN', KEYS[1]) > 3 then
  local was_there = redis.call('HSET', KEYS[1], node, '') == 0
  -- Who made it begin and does not know its life did not hear the answer.
  return {life, was_there and by == node and known == '' and 1 or 0}
end
local answer = {ARGV[2], 1}
if life and life == known and by == node then
  -- It left, did not hear that it was the last one, and is back: nobody was told.
  answer, by = {life, 0}, ''
else
  life, by = ARGV[2], node
end
redis.call('HSET', KEYS[1], 'i', life, 'b', by, 'a', now, node, '')
redis.call('PERSIST', KEYS[1])
return answer",
);

/// A node has no subscribers in a channel any more.
///
/// KEYS: occupants. ARGV: the node, the life that it knows (or nothing), `1` when somebody says it of a node whose lease ended.
/// Answers `{life, 2}` to the one that is to tell that the channel is vacant, `{life, 1}` when it is to be told again that it
/// is occupied (who had to tell it a moment ago may have died first), else `{life, 0}`.
pub(in super::super) static VACATE: Script = Script::new(
    r"local node, known, mark = ARGV[1], ARGV[2], ARGV[1]
if ARGV[3] == '1' then mark = '!' .. node end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local found = redis.call('HMGET', KEYS[1], 'i', 'b', 'a')
local life, by = found[1], found[2]
if life then
  local was_there = redis.call('HDEL', KEYS[1], node) == 1
  if redis.call('HLEN', KEYS[1]) > 3 then
    if ARGV[3] == '1' and by == node and now - tonumber(found[3]) < 60000 then
      redis.call('HSET', KEYS[1], 'b', '')
      return {life, 1}
    end
    return {life, 0}
  end
  if not was_there and by ~= node and by ~= mark then return {life, 0} end
elseif known == '' then
  return {'', 0}
else
  -- Redis lost it. Who else is there will say so, and then it begins anew.
  life = known
end
redis.call('HSET', KEYS[1], 'i', life, 'b', mark, 'a', string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], 60000)
return {life, 2}",
);
