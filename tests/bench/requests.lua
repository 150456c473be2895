-- wrk's requests: those of a file in turn, one a line: method, path and body with tabs between.
local requests, count = {}, 0

function init(args)
  wrk.headers["Content-Type"] = "application/json"
  for line in io.lines(args[1]) do
    local method, path, body = line:match("^(%S+)\t(%S+)\t(.*)$")
    if body == "" then body = nil end
    requests[#requests + 1] = wrk.format(method, path, nil, body)
  end
end

function request()
  count = count % #requests + 1
  return requests[count]
end
