-- Sends the requests of a file one after the other, each as it stands there: see installs.py.
local requests, at = {}, 0

function setup(thread)
  if not count then count = 0 end
  thread:set("offset", count)
  count = count + 1
end

function init(args)
  requests = dofile(args[1])
  -- Two threads are not to ask for the same in step.
  at = math.floor(#requests / 2) * offset
end

function request()
  at = at % #requests + 1
  return requests[at]
end
