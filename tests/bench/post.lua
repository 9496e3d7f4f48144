-- Posts the prepared deliveries of a file one after the other, each once: a line is a signature, a tab and a body.
local lines, at, path, stated = {}, 0, nil, nil

function init(args)
  path = args[2]
  stated = os.date('!%Y-%m-%dT%H:%M:%SZ')
  for line in io.lines(args[1]) do
    local tab = line:find('\t', 1, true)
    lines[#lines + 1] = { line:sub(1, tab - 1), line:sub(tab + 1) }
  end
end

function request()
  at = at % #lines + 1
  return wrk.format('POST', path, {
    ['Host'] = 'localhost',
    ['Content-Type'] = 'application/json',
    ['X-Genesys-Signature'] = lines[at][1],
    ['X-Genesys-Event-Timestamp'] = stated,
  }, lines[at][2])
end

function done(summary, latency)
  local e = summary.errors
  print(string.format('{"requests": %d, "seconds": %f, "refused": %d, "broken": %d, "p50_ms": %f, "p99_ms": %f}',
    summary.requests, summary.duration / 1e6, e.status, e.connect + e.read + e.write + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
