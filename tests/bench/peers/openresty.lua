-- The job of taskproxy in OpenResty: checks the token, answers from the shared dictionary or Redis, and queries the upstream once
-- for all requests that wait for a task. The view is trimmed, in the upstream's order of members.
local cjson = require "cjson"
local ffi = require "ffi"

ffi.cdef "unsigned char *SHA256(const unsigned char *data, size_t len, unsigned char *digest);"

local POLL_SECONDS, ENDED_SECONDS = 2, 86400
local LOCK_SECONDS, PATIENCE_SECONDS = 10, 5
local HEAD = "%s %010d %010d %s" -- of a kept view: ETag, time it was fetched, time it expires, body
local ENDED = { SUCCESS = true, FAILURE = true }

local views, locks = ngx.shared.views, ngx.shared.locks
local digest = ffi.new("unsigned char[32]")

local function sha256(text)
    ffi.C.SHA256(text, #text, digest)
    return ffi.string(digest, 32)
end

local function hex(bytes)
    return (bytes:gsub(".", function(byte) return string.format("%02x", byte:byte()) end))
end

local tokens = { [sha256(os.getenv("PEER_TOKEN"))] = "web" }
local redis_address = "unix:" .. os.getenv("PEER_REDIS")

---- The view ----

local coding = { "duration_secs", "height", "path", "size", "width" }
local path_only = { "path" }
local KEPT = { "code", "message", { "data", {
    "task_id", "action", "status", "fail_reason", "submit_time", "start_time", "finish_time", "progress",
    { "data", {
        "created_at", "estimated_queue_wait_time", "failure_reason",
        { "generations", {
            "created_at",
            { "encodings", {
                { "ld", coding }, { "md", coding }, { "source", coding },
                { "spritesheet", path_only }, { "thumbnail", path_only } } },
            "height", "id", "model", "n_frames", "prompt", "seed", "task_id", "title", "url", "width" } },
        "height", "id", "model", "n_frames", "n_variants", "progress_pct", "progress_pos_in_queue", "prompt", "status", "style",
        "title", "type", "width" } } } } }

local trim

local function trim_object(object, kept)
    local members = {}
    for _, rule in ipairs(kept) do
        local name, inner = rule, nil
        if type(rule) == "table" then name, inner = rule[1], rule[2] end
        if object[name] ~= nil then
            members[#members + 1] = '"' .. name .. '":' .. trim(object[name], inner)
        end
    end
    return "{" .. table.concat(members, ",") .. "}"
end

function trim(value, kept)
    if type(value) ~= "table" then
        return (cjson.encode(value):gsub("\\/", "/"))
    end
    if #value == 0 then
        return trim_object(value, kept)
    end
    local elements = {}
    for i, element in ipairs(value) do
        elements[i] = trim(element, kept)
    end
    return "[" .. table.concat(elements, ",") .. "]"
end

---- Redis ----

local function command(connection, ...)
    local parts = { "*" .. select("#", ...) .. "\r\n" }
    for _, part in ipairs({ ... }) do
        parts[#parts + 1] = "$" .. #part .. "\r\n" .. part .. "\r\n"
    end
    local sent = connection:send(table.concat(parts))
    local line = sent and connection:receive()
    local length = line and line:match("^%$(%d+)")
    local text = length and connection:receive(tonumber(length) + 2)
    return text and text:sub(1, -3)
end

-- Without Redis, the result is nil.
local function with_redis(...)
    local connection = ngx.socket.tcp()
    connection:settimeout(50)
    if not connection:connect(redis_address) then
        return nil
    end
    local reply = command(connection, ...)
    connection:setkeepalive(10000, 64)
    return reply
end

---- The fetch ----

local function query_upstream(id)
    local answer = ngx.location.capture("/upstream/" .. id)
    local good, document = pcall(cjson.decode, answer.body)
    if answer.status ~= 200 or not good or document.code ~= "success" then
        return nil
    end
    local body = trim(document, KEPT)
    local ended = ENDED[document.data.status]
    local now = math.floor(ngx.now())
    local seconds = ended and ENDED_SECONDS or POLL_SECONDS
    local view = HEAD:format('"' .. hex(sha256(body):sub(1, 16)) .. '"', now, now + seconds, body)
    if ended then
        with_redis("SETEX", "openresty:" .. id, tostring(seconds), view)
    end
    return view, seconds
end

local function fetch(id)
    local view = with_redis("GET", "openresty:" .. id)
    if view then
        return view, tonumber(view:sub(47, 56)) - ngx.time(), "HIT"
    end
    local seconds
    view, seconds = query_upstream(id)
    return view, seconds, "MISS"
end

-- One request fetches; the others look into the dictionary until it has the view.
local function fetch_once(id)
    local pause, waited = 0.001, 0
    while not locks:add(id, true, LOCK_SECONDS) do
        ngx.sleep(pause)
        waited, pause = waited + pause, math.min(2 * pause, 0.5)
        local view = views:get(id)
        if view or waited > PATIENCE_SECONDS then
            return view, "COLLAPSED"
        end
    end
    local view, seconds, how = fetch(id)
    if view then
        views:set(id, view, math.max(1, seconds))
    end
    locks:delete(id)
    return view, how
end

---- The answer ----

local STATUS = { HIT = "peer; hit; ttl=", MISS = "peer; fwd=miss; stored", COLLAPSED = "peer; fwd=miss; collapsed" }

local function send(view, how)
    local etag, fetched, expires, body = view:sub(1, 34), tonumber(view:sub(36, 45)), tonumber(view:sub(47, 56)), view:sub(58)
    local header, now = ngx.header, ngx.time()
    header["Content-Type"] = "application/json"
    header["X-Request-Id"] = ngx.var.request_id
    header["X-Content-Type-Options"] = "nosniff"
    header["Cache-Status"] = how == "HIT" and STATUS.HIT .. (expires - now) or STATUS[how]
    header["X-Cache"] = how
    header["Age"] = now - fetched
    if expires - fetched > POLL_SECONDS then
        header["Cache-Control"] = "private, max-age=" .. (expires - now)
    else
        header["Cache-Control"] = "private, no-cache"
        header["Retry-After"] = POLL_SECONDS
    end
    header["ETag"] = etag
    header["Vary"] = "Accept, Prefer, Origin, Authorization"
    if ngx.var.http_if_none_match == etag then
        ngx.status = 304
        return ngx.send_headers()
    end
    header["Content-Length"] = #body
    ngx.print(body)
end

return function()
    local authorization = ngx.var.http_authorization
    if not authorization or authorization:sub(1, 7) ~= "Bearer " or not tokens[sha256(authorization:sub(8))] then
        return ngx.exit(401)
    end
    local id = ngx.var.task
    local view, how = views:get(id), "HIT"
    if not view then
        view, how = fetch_once(id)
    end
    if not view then
        return ngx.exit(502)
    end
    return send(view, how)
end
