-- What the scripts of sessions share. JSON is taken apart as text: a way through Redis's own tables would turn an empty
-- list into an empty object and round long numbers.

-- The place after the JSON value that begins at i.
local function skip(s, i)
  local first = string.sub(s, i, i)
  if first == '"' then
    local j = i + 1
    while true do
      j = string.find(s, '["\\]', j)
      if string.sub(s, j, j) == '"' then return j + 1 end
      j = j + 2
    end
  end
  if first ~= '{' and first ~= '[' then return string.find(s, '[%s,%]}]', i) end
  local depth, j = 0, i
  while true do
    j = string.find(s, '["%[%]{}]', j)
    local c = string.sub(s, j, j)
    if c == '"' then
      j = skip(s, j)
    else
      depth = depth + ((c == '{' or c == '[') and 1 or -1)
      j = j + 1
      if depth == 0 then return j end
    end
  end
end

-- The text of a JSON string.
local function text(json) return cjson.decode('[' .. json .. ']')[1] end

-- The names of an object in their order, each once and in one spelling, and its values by name, all as JSON. An error when it
-- is none, as all that is read here and was written elsewhere may be: without it this would go round for ever.
local function members(s)
  local names, values = {}, {}
  if string.sub(s, 1, 1) ~= '{' then error('no object') end
  local i = string.find(s, '[^%s]', 2)
  while string.sub(s, i, i) ~= '}' do
    if string.sub(s, i, i) ~= '"' then error('no name') end
    local after = skip(s, i)
    local name = string.sub(s, i, after - 1)
    if string.find(name, '\\', 1, true) then
      local plain = text(name)
      local needs_escapes = string.find(plain, '[%c"\\]')
      name = needs_escapes and cjson.encode(plain) or '"' .. plain .. '"'
    end
    i = string.find(s, '[^%s:]', after)
    after = skip(s, i)
    if not values[name] then names[#names + 1] = name end
    values[name] = string.sub(s, i, after - 1)
    i = string.find(s, '[^%s,]', after)
  end
  return names, values
end

local function whole(number) return string.format('%.0f', number) end
local function seconds(millis) return string.format('%.3f', millis / 1000) end

-- The keys of a user, by a prefix and the name.
local function of_user(prefix, user)
  return {
    sessions = prefix .. 'idx:sessions:' .. user,
    heads = prefix .. 'idx:heads:' .. user,
    connections = prefix .. 'idx:connections:' .. user,
    connection = prefix .. 'connections:' .. user,
    all = prefix .. 'idx:sessions',
  }
end

-- What is kept of a user ends when the last session does, or a sixteenth of its time later: so long it need not be told that
-- a session is used.
local function expire(keys, timeout)
  local top = redis.call('ZREVRANGE', keys.sessions, 0, 0, 'WITHSCORES')[2]
  if not top then return end
  local at = whole(tonumber(top) + timeout + timeout / 16)
  redis.call('PEXPIREAT', keys.sessions, at)
  redis.call('PEXPIREAT', keys.heads, at)
  redis.call('PEXPIREAT', keys.connections, at)
  redis.call('PEXPIREAT', keys.connection, at)
end

local function use(keys, id, last)
  redis.call('ZADD', keys.sessions, whole(last), id)
  redis.call('ZADD', keys.all, whole(last), id)
end

local function index(keys, id, head, last, timeout)
  use(keys, id, last)
  redis.call('HSET', keys.heads, id, head)
  expire(keys, timeout)
end

-- The session was used at another time. Its user's keys are told once in a sixteenth of the time-out.
local function renew(keys, id, used, last, timeout)
  use(keys, id, last)
  local step = timeout / 16
  if math.floor(last / step) ~= math.floor(used / step) then expire(keys, timeout) end
end

local function drop(prefix, keys, ids)
  for _, id in ipairs(ids) do
    redis.call('DEL', prefix .. 'sessions:' .. id)
    redis.call('ZREM', keys.sessions, id)
    redis.call('ZREM', keys.all, id)
    redis.call('HDEL', keys.heads, id)
  end
  return ids
end

local function drop_all(prefix, user)
  local keys = of_user(prefix, user)
  return drop(prefix, keys, redis.call('ZRANGE', keys.sessions, 0, -1))
end

-- Adds a session; of the user's sessions the most that were used last stay. Answers those that went.
local function add(prefix, user, id, record, head, last, timeout, most)
  local keys = of_user(prefix, user)
  drop(prefix, keys, redis.call('ZRANGEBYSCORE', keys.sessions, '-inf', '(' .. whole(last - timeout)))
  local ended = redis.call('ZREVRANGE', keys.sessions, most - 1, -1)
  drop(prefix, keys, ended)
  redis.call('SET', prefix .. 'sessions:' .. id, record, 'PXAT', whole(last + timeout))
  index(keys, id, head, last, timeout)
  return ended
end

-- A record as it is written here: what stands before the last use, user, conversation, creation, node, last use in seconds and
-- their fraction, and data. All but the first and the fraction are JSON.
local ours = '^({"user_id":("[^"\\]*"),"chat_id":("[^"\\]*"),"created_at":([%d.]+),"node":("[^"\\]*"),"last_access":)'
  .. '(%d+)(%.?%d*),"data":({.*})}$'
-- The same as far as a reader needs it: the user as text, and the last use.
local ours_begin = '^{"user_id":"([^"\\]*)","chat_id":"[^"\\]*","created_at":[%d.]+,"node":"[^"\\]*","last_access":([%d.]+),'

-- The parts of any record: user, conversation, creation, node, last use and data, all as JSON.
local function parts_of(record)
  local _, parts = members(record)
  return parts['"user_id"'], parts['"chat_id"'], parts['"created_at"'], parts['"node"'], parts['"last_access"'], parts['"data"']
end

local function millis(seconds_text) return math.floor((tonumber(seconds_text) or 0) * 1000 + 0.5) end

-- The same of a record that another system or an operator wrote, with the user as text; nothing when nobody can read it.
local function parts_of_other(record)
  local is_readable, user, chat, created, node, last, data = pcall(parts_of, record)
  if not is_readable or not data then return end
  local is_text, name = pcall(text, user)
  if is_text and type(name) == 'string' then return name, user, chat, created, node, last, data end
end

-- A record; nothing when there is none, and false when something else stands there.
local function record_of(prefix, id)
  local record = redis.pcall('GET', prefix .. 'sessions:' .. id)
  if type(record) == 'table' then return false end
  return record or nil
end

-- Whose a session is, when it was last used, whether that stands in the index, and the record; nothing when there is none, and
-- false when nobody can read it. The index is right to the second; what is written behind stands only there.
local function find(prefix, id)
  local record = record_of(prefix, id)
  if not record then return record end
  local user, last = string.match(record, ours_begin)
  if not user then
    local _
    user, _, _, _, _, last = parts_of_other(record)
    if not user then return false end
  end
  -- One that another system wrote has no index.
  local used = redis.call('ZSCORE', prefix .. 'idx:sessions:' .. user, id)
  return user, math.max(tonumber(used) or 0, millis(last)), used and true, record
end

-- What is known of a session in one text: the length of its user's name, its last use, the name and the record.
local function told(user, used, record) return #user .. ' ' .. whole(used) .. ' ' .. user .. record end

-- That of a session, with the record where it is wanted (1); empty when there is none, and `!` when nobody can read it.
local function read(prefix, id, is_wanted)
  local user, used, _, record = find(prefix, id)
  if not user then return user == false and '!' or '' end
  return told(user, used, is_wanted == '1' and record or '')
end

-- The session was used at this time, if it lives and that is new. Whether it was.
local function touch(prefix, keys, id, at, timeout)
  local used = tonumber(redis.call('ZSCORE', keys.sessions, id))
  if not used or at <= used or redis.call('PEXPIREAT', prefix .. 'sessions:' .. id, whole(at + timeout)) == 0 then return false end
  use(keys, id, at)
  expire(keys, timeout)
  return true
end

-- A process lives at this time.
local function live(prefix, process, at)
  local last = redis.call('ZSCORE', prefix .. 'idx:lives', process)
  if not last or tonumber(last) < at then redis.call('ZADD', prefix .. 'idx:lives', whole(at), process) end
end

-- The sockets of a user whose processes have lived since then: clients and JSON in turn, and the newest; and whether there are
-- others. Those of a process that nobody remembers are thrown away.
local function sockets(prefix, keys, since)
  local all, told, newest, has_dead = redis.call('HGETALL', keys.connections), {}, nil, false
  for i = 1, #all, 2 do
    local socket = cjson.decode(all[i + 1])
    -- One that an earlier version wrote names no process.
    local last = since
    if socket.life then last = redis.call('ZSCORE', prefix .. 'idx:lives', socket.life) end
    if last and tonumber(last) >= since then
      told[#told + 1] = all[i]
      told[#told + 1] = all[i + 1]
      if not newest or socket.at > newest.at then newest = socket end
    else
      has_dead = true
      if not last then redis.call('HDEL', keys.connections, all[i]) end
    end
  end
  return told, newest, has_dead
end

-- Shows the newest socket, or none, where the FastAPI gateway looks for it.
local function show(keys, newest, until_)
  if not newest then
    redis.call('DEL', keys.connection)
    return
  end
  redis.call('HSET', keys.connection, 'session_id', newest.session, 'gateway_id', newest.node, 'ws_connected', '1')
  if redis.call('HSETNX', keys.connection, 'last_seen', seconds(newest.at)) == 1 then
    redis.call('PEXPIREAT', keys.connection, until_)
  end
end
