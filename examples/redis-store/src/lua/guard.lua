-- KEYS: own, network, the wide network if there is one, far; then the known networks. ARGV after the rules: the user with the
-- network, or nothing; since when a network is known; how many rules there are.
local many = tonumber(ARGV[#ARGV])
local network = ARGV[2 * many + 2]
local seen = network ~= '' and redis.call('ZSCORE', KEYS[many + 1], network)
local known = seen and tonumber(seen) >= tonumber(ARGV[2 * many + 3])
local guarding = rules(1, known and many - 1 or many)
