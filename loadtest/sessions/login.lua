-- Logins with the right password. USERS is how many there are.
local users = tonumber(os.getenv("USERS"))
local count = 0
request = function()
  count = count + 1
  local body = '{"username":"user-' .. count % users .. '","password":"correct horse"}'
  return wrk.format("POST", "/sessions/login", { ["Content-Type"] = "application/json" }, body)
end

-- 128 connections that pause so long ask 200 times a second, and less while answers wait.
function delay()
    return 640
end
