-- KEYS: the counters of wrong tries, and the budget if there is one. The last of ARGV: how many counters. Counts a guess as a
-- wrong one before it is judged. Answers 0 and, for each key, what stood there and what stands there now (-1: nothing);
-- 1 and a wait when the budget is used up; 2 and a wait when every counter is.
local counters = tonumber(ARGV[#ARGV])
local tries, budget, all = rules(1, counters), rules(counters + 1, #KEYS), rules(1, #KEYS)
bring_back(all)
local _, over = used_up(budget)
if over then return {1, over} end
local many, longest = used_up(tries)
if longest and many == counters then return {2, longest} end
local answer = {0}
for _, rule in ipairs(all) do
    local n, ends = read(rule.key)
    count({rule})
    local n_now, ends_now = read(rule.key)
    for _, value in ipairs({n or -1, ends or 0, n_now, ends_now}) do answer[#answer + 1] = value end
end
return answer
