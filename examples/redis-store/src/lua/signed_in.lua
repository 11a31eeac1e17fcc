-- KEYS: the known networks, and the limit of one's own failures if there is one. ARGV: the time, the user with the network, and
-- how many failures are forgiven: those that the sign-in was judged by, and none that came since.
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
if KEYS[2] then
    local n = tonumber(redis.call('HGET', KEYS[2], 'n') or nil)
    if n and n <= tonumber(ARGV[3]) then
        redis.call('DEL', KEYS[2])
    elseif n then
        redis.call('HINCRBY', KEYS[2], 'n', '-' .. ARGV[3])
    end
end
