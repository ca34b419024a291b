//! Orders to all nodes.

use crate::redis::Script;

/// Tells an order to the nodes, and keeps it for those whose connection is being made anew.
///
/// A server without memory keeps nothing and tells it all the same: whoever logs out must not stay because of that. So it is
/// then told without an id, by which it would be looked for.
///
/// KEYS: the stream. ARGV: the pub/sub channel, the order, the same without its id, how many are kept, for how long.
/// Answers whether it is kept.
pub(in super::super) static ORDER: Script = Script::new(
    r"local kept = redis.pcall('XADD', KEYS[1], 'MAXLEN', ARGV[4], '*', 'o', ARGV[2])
if type(kept) == 'table' then
  if not string.find(kept.err, 'OOM') then return kept end
  redis.call('PUBLISH', ARGV[1], ARGV[3])
  return 0
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f', math.max(now - tonumber(ARGV[5]), 0)))
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('PUBLISH', ARGV[1], ARGV[2])
return 1",
);
