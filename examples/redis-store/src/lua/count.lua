-- KEYS: the rules to count, the rule to reset if there is one, and the note that this command was counted. The last of ARGV:
-- how many are to be counted. Answers the longest wait when a rule is used up, and then nothing is counted.
local asked = tonumber(ARGV[#ARGV])
local counting, resetting = rules(1, asked), rules(asked + 1, #KEYS - 1)
if redis.call('EXISTS', KEYS[#KEYS]) == 1 then return false end
bring_back(counting)
bring_back(resetting)
local _, longest = used_up(counting)
if longest then return longest end
count(counting)
for _, rule in ipairs(resetting) do write(rule.key, 0, now + rule.window) end
redis.call('SET', KEYS[#KEYS], '', 'PX', DAY)
return false
