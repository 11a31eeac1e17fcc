-- KEYS: the index of access tokens, the known networks. ARGV: the time, the most access tokens, since when a network is known.
-- Answers how many access tokens were removed.
local over = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, key in ipairs(over) do
    redis.call('DEL', key)
    redis.call('ZREM', KEYS[1], key)
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[3])
return #over
