-- wrk's requests: a thousand keys in turn, a value of 16 bytes.
wrk.method = "PUT"
wrk.body = '{"value":"0123456789abcdef"}'
wrk.headers["Content-Type"] = "application/json"
local count = 0
request = function()
  count = count + 1
  return wrk.format(nil, "/kv/key" .. (count % 1000))
end
