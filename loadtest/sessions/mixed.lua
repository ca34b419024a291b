-- What clients of sessions ask over HTTP: their session, and an update of it with a new key, in turn. SESSIONS names a file with a
-- token and a session's id on each line.
local users = {}
for line in io.lines(os.getenv("SESSIONS")) do
  local token, session = line:match("^(%S+) (%S+)$")
  users[#users + 1] = {
    session = session,
    headers = { ["Authorization"] = "Bearer " .. token, ["Content-Type"] = "application/json" },
    bearer = { ["Authorization"] = "Bearer " .. token },
  }
end

local count = 0
request = function()
  count = count + 1
  local user = users[math.floor(count / 2) % #users + 1]
  if count % 2 == 0 then return wrk.format("GET", "/sessions/" .. user.session, user.bearer) end
  local body = '{"data":{"api_key":"key-' .. count .. '"}}'
  return wrk.format("POST", "/sessions/update/" .. user.session, user.headers, body)
end
