-- KEYS: own, network, far, the known networks. ARGV after the rules: the user with the network, or nothing, and since when a
-- network is known.
local seen = ARGV[8] ~= '' and redis.call('ZSCORE', KEYS[4], ARGV[8])
local known = seen and tonumber(seen) >= tonumber(ARGV[9])
local guarding = rules(1, known and 2 or 3)
