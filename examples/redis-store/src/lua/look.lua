-- KEYS: the rules. Answers for each the wait, or -1 where it is not used up.
local waits = {}
for _, rule in ipairs(rules(1, #KEYS)) do waits[#waits + 1] = look({rule}) or -1 end
return waits
