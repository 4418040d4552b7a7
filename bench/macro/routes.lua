-- wrk: a thousand paths in turn.
local requests, last = {}, 0

init = function()
    for i = 0, 999 do
        requests[i] = wrk.format("GET", string.format("/r%04d/1k", i))
    end
end

request = function()
    last = (last + 1) % 1000
    return requests[last]
end
