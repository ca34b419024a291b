-- One update after the other, each connection's in a session of its own. SESSIONS names a file with a token and a session's id on
-- each line.
local users = {}
for line in io.lines(os.getenv("SESSIONS")) do
  local token, session = line:match("^(%S+) (%S+)$")
  users[#users + 1] = { token = token, session = session }
end

local count = 0
request = function()
  count = count + 1
  local user = users[count % #users + 1]
  local headers = { ["Authorization"] = "Bearer " .. user.token, ["Content-Type"] = "application/json" }
  local body = '{"chat_id":"default","data":{"api_key":"key-' .. count .. '"}}'
  return wrk.format("POST", "/sessions/update/" .. user.session, headers, body)
end
