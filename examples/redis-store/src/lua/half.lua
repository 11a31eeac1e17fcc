-- Half a session is a hash: `refresh` and `previous`, digests; `replaced`, when the one before was; `seen` and `idle`, the last
-- use and the idle end. An access token is a text, its session and its end, and stands in an index by its end. Times are
-- microseconds and come by ARGV alone. How long a key lives only tidies up.
--
-- KEYS: the half, the index, and the access token to grant if there is one. ARGV: the time, the digest that is expected, the
-- five fields, and of the access token the text and the end.
local function keep(key, ends)
    local left = math.max(tonumber(ends) - tonumber(ARGV[1]), 0)
    redis.call('PEXPIRE', key, string.format('%.0f', left / 1000 + 24 * 60 * 60 * 1000))
end

local function write()
    redis.call('HSET', KEYS[1], 'refresh', ARGV[3], 'previous', ARGV[4], 'replaced', ARGV[5], 'seen', ARGV[6], 'idle', ARGV[7])
    keep(KEYS[1], ARGV[7])
    if KEYS[3] then
        redis.call('SET', KEYS[3], ARGV[8])
        keep(KEYS[3], ARGV[9])
        redis.call('ZADD', KEYS[2], ARGV[9], KEYS[3])
    end
    return 1
end
