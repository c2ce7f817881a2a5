-- An action of HAProxy (2.6 or newer) that asks Gatehouse whether a request may pass:
--
--   global
--       lua-load /etc/haproxy/gatehouse.lua
--   frontend …
--       http-request lua.gatehouse http://127.0.0.1:8080
--       http-request deny deny_status 503 if !{ var(txn.gatehouse_pass) -m bool }
--
-- HAProxy goes on with a request whose action failed; the second rule refuses what the action did not let through.
-- A request that may pass goes on with the identity headers of the answer in the place of its own, and with a Cookie header without the
-- cookies of Gatehouse. Any other is answered here: 302 to the login page, 401, 403, or 503 where Gatehouse cannot be asked.
-- `gatehouse config snippet haproxy` prints the frontend for the hosts of your configuration.

local patience = 2500 -- ms for each of httpclient's four tries; the gateway answers within 2000

-- What an answer may say about the request to the app.
local copied = {
  "^remote%-", "^x%-remote%-", "^x%-auth%-request%-", "^x%-forwarded%-user$", "^x%-forwarded%-preferred%-username$",
  "^x%-forwarded%-email$", "^x%-forwarded%-groups$", "^x%-gatehouse%-assertion$", "^cookie$", "^authorization$",
}

-- What belongs to the connection of the request, or to its body, which is not sent along.
local own = {
  ["connection"] = true, ["content-length"] = true, ["transfer-encoding"] = true, ["upgrade"] = true, ["expect"] = true, ["te"] = true,
  ["trailer"] = true, ["keep-alive"] = true, ["proxy-connection"] = true,
}

local function question(txn)
  local headers = {}
  for name, values in pairs(txn.http:req_get_headers()) do
    if not own[name] and not name:find("^x[-_.]forwarded") and not name:find("^x[-_.]original") then
      headers[name] = {}
      for i = 0, #values do
        table.insert(headers[name], values[i])
      end
    end
  end
  local host = txn.sf:req_fhdr("host") or "" -- which the gateway refuses
  headers["host"] = { host }
  headers["x-forwarded-for"] = { txn.sf:src() }
  headers["x-original-method"] = { txn.sf:method() }
  headers["x-original-url"] = { (txn.sf:ssl_fc() == "1" and "https" or "http") .. "://" .. host .. txn.sf:pathq() }
  return headers
end

local function first(answer, name)
  local values = answer.headers and answer.headers[name]
  return values and values[0] or ""
end

local function reply(txn, status, answer, location)
  local out = txn:reply({ status = status, body = status ~= 302 and answer and answer.body or nil })
  out:add_header("Cache-Control", "no-store")
  for _, name in ipairs({ "www-authenticate", "content-type", "retry-after", "x-gatehouse-code" }) do
    local values = answer and answer.headers and answer.headers[name]
    for i = 0, values and #values or -1 do
      out:add_header(name, values[i])
    end
  end
  if location then
    out:add_header("Location", location)
  end
  txn:done(out)
end

local function pass(txn, answer)
  txn:set_var("txn.gatehouse_pass", true)
  for name, values in pairs(answer.headers) do
    for _, pattern in ipairs(copied) do
      if name:find(pattern) then
        txn.http:req_del_header(name)
        if values[0] and values[0] ~= "" then
          txn.http:req_add_header(name, values[0])
        end
      end
    end
  end
end

core.register_action("gatehouse", { "http-req" }, function(txn, gateway)
  local answer = core.httpclient():get({
    url = gateway .. "/.gatehouse/authz/auth-request", headers = question(txn), timeout = patience,
  })
  if not answer then
    return reply(txn, 503)
  elseif answer.status == 200 then
    return pass(txn, answer)
  elseif answer.status == 401 and first(answer, "x-gatehouse-location") ~= "" then
    return reply(txn, 302, answer, first(answer, "x-gatehouse-location"))
  elseif answer.status == 401 then
    return reply(txn, 401, answer)
  elseif answer.status == 403 and first(answer, "x-gatehouse-code") ~= "unavailable" then
    return reply(txn, 403, answer)
  end
  reply(txn, 503)
end, 1)
