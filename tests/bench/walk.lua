-- Asks once for each task of a row, then stops:  wrk -t1 -s walk.lua URL -- FIRST COUNT

local following, last, left

function init(args)
    following, left = tonumber(args[1]), tonumber(args[2])
    last = following + left - 1
end

function request()
    local path = string.format("/sora/v1/videos/task_%06d", math.min(following, last))
    following = following + 1
    return wrk.format("GET", path)
end

function response()
    left = left - 1
    if left == 0 then
        wrk.thread:stop()
    end
end
