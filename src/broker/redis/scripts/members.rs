//! Who is present in a channel: a hash of members by client, each behind the 32 digits of its node's name; a sorted set of
//! the clients, which gives them an order; a hash of how many connections each user has.
//!
//! A call is about many clients, and costs the server a few commands for all of them together: thousands come at once when
//! a node begins, and go at once when one ends. What is told of them goes to the nodes as few envelopes.

use crate::redis::Script;

/// How a script tells of members: at most 64 in an envelope `{e?, v, k, b}`, where `b` is the array of them. And how it counts
/// the connections of users, of which only those are kept that have any.
macro_rules! with_members {
    ($text:literal) => {
        Script::new(concat!(
            r"local function tell(channel, kind, meta, members)
  if channel == '' or #members == 0 then return end
  local epoch = redis.call('HGET', meta, 'e')
  local head = (epoch and '\132' .. cmsgpack.pack('e', epoch) or '\131') .. cmsgpack.pack('v', 1, 'k', kind, 'b')
  for from = 1, #members, 64 do
    local to = math.min(from + 63, #members)
    redis.call('PUBLISH', channel, head .. '\220\0' .. string.char(to - from + 1) .. table.concat(members, '', from, to))
  end
end
local function count(users, changes)
  for user, change in pairs(changes) do
    if change ~= 0 and redis.call('HINCRBY', users, user, change) <= 0 then redis.call('HDEL', users, user) end
  end
end
local function take_away(clients, found, told)
  local gone, members, users, seen = {}, {}, {}, {}
  for at, client in ipairs(clients) do
    if found[at] and not seen[client] then
      seen[client] = true
      local member = string.sub(found[at], 33)
      local user = cmsgpack.unpack(member).u
      gone[#gone + 1], members[#members + 1] = client, member
      users[user] = (users[user] or 0) - 1
    end
  end
  if #gone == 0 then return end
  redis.call('HDEL', KEYS[1], unpack(gone))
  redis.call('ZREM', KEYS[2], unpack(gone))
  count(KEYS[3], users)
  tell(told, 'l', KEYS[4], members)
end
",
            $text
        ))
    };
}

/// Connections are present.
///
/// KEYS: members, their order, users, meta. ARGV: the node, the pub/sub channel or nothing, then of each connection, each
/// another one, the client, the member (MessagePack) and the user. Answers how many were not there before.
pub(in super::super) static JOIN: Script = with_members!(
    r"local clients, values = {}, {}
for at = 3, #ARGV, 3 do
  clients[#clients + 1] = ARGV[at]
  values[#values + 1], values[#values + 2] = ARGV[at], ARGV[1] .. ARGV[at + 1]
end
local old = redis.call('HMGET', KEYS[1], unpack(clients))
redis.call('HSET', KEYS[1], unpack(values))
local came, order, users = {}, {}, {}
for at, client in ipairs(clients) do
  local user = ARGV[at * 3 + 2]
  users[user] = (users[user] or 0) + 1
  if old[at] then
    local was = cmsgpack.unpack(string.sub(old[at], 33)).u
    users[was] = (users[was] or 0) - 1
  else
    came[#came + 1] = ARGV[at * 3 + 1]
    order[#order + 1], order[#order + 2] = 0, client
  end
end
if #came > 0 then redis.call('ZADD', KEYS[2], unpack(order)) end
count(KEYS[3], users)
tell(ARGV[2], 'j', KEYS[4], came)
return #came"
);

/// Connections are no longer present.
///
/// KEYS: members, their order, users, meta. ARGV: the pub/sub channel or nothing, the clients.
pub(in super::super) static LEAVE: Script = with_members!(
    r"local clients = {}
for at = 2, #ARGV do clients[at - 1] = ARGV[at] end
take_away(clients, redis.call('HMGET', KEYS[1], unpack(clients)), ARGV[1])
return #clients"
);

/// The same of all of a node, some of the channel's members at a time: so many in one step would hold up the server.
///
/// KEYS: members, their order, users, meta. ARGV: the pub/sub channel or nothing, the node, the cursor (0 at first), how
/// many members to look at. Answers the next cursor: 0 when all have been looked at.
pub(in super::super) static LEAVE_NODE: Script = with_members!(
    r"local some = redis.call('HSCAN', KEYS[1], ARGV[3], 'COUNT', ARGV[4])
local clients, found = {}, {}
for at = 1, #some[2], 2 do
  local member = some[2][at + 1]
  if string.sub(member, 1, 32) == ARGV[2] then
    clients[#clients + 1], found[#found + 1] = some[2][at], member
  end
end
take_away(clients, found, ARGV[1])
return some[1]"
);

/// Who is present. KEYS: members, their order, users. ARGV: how many to list. Answers `{clients, users, members}`.
pub(in super::super) static PRESENCE: Script = Script::new(
    r"local members = {}
local limit = tonumber(ARGV[1])
if limit > 0 then
  for _, client in ipairs(redis.call('ZRANGE', KEYS[2], 0, limit - 1)) do
    local member = redis.call('HGET', KEYS[1], client)
    if member then members[#members + 1] = string.sub(member, 33) end
  end
end
return {redis.call('HLEN', KEYS[1]), redis.call('HLEN', KEYS[3]), members}",
);
