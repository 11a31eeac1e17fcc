-- KEYS: the rules. Counts them unless one is past its limit. Answers 0; 1 and the longest wait when one was used up, so that
-- this is the last entry of the window; 2 and the longest wait when the last was before it.
local all, past = rules(1, #KEYS), rules(1, #KEYS)
for _, rule in ipairs(past) do rule.limit = rule.limit + 1 end
bring_back(all)
local _, over = used_up(past)
if over then return {2, over} end
local _, longest = used_up(all)
count(all)
return {longest and 1 or 0, longest or 0}
