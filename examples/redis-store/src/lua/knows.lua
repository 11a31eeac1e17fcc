-- KEYS: the known networks. ARGV: the user with the network, and since when a network is known. Answers 1 or 0.
local seen = redis.call('ZSCORE', KEYS[1], ARGV[1])
return seen and tonumber(seen) >= tonumber(ARGV[2]) and 1 or 0
