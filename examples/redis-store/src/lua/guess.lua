-- KEYS: the counters of wrong tries, and the budgets. The last of ARGV: how many counters. Counts a guess as a wrong one
-- before it is judged; the budgets whatever comes of it. Answers 1, a wait and which budget refuses when one is used up; else 0, or 2 and a
-- wait when every counter is used up, and for each key that was counted what stood there and what stands there now (-1:
-- nothing).
local counters = tonumber(ARGV[#ARGV])
local tries, budgets, all = rules(1, counters), rules(counters + 1, #KEYS), rules(1, #KEYS)
bring_back(all)
local _, over = used_up(budgets)
if over then
    -- A rule that refuses for the first time in its window, else one that has refused before.
    local refusing
    for i, rule in ipairs(budgets) do
        local n = counted(rule)
        if n == rule.limit or (n > rule.limit and not refusing) then refusing = i end
    end
    count(budgets)
    return {1, over, refusing}
end
local many, longest = used_up(tries)
local answer, counting = {0}, all
if longest and many == counters then answer, counting = {2, longest}, budgets end
for _, rule in ipairs(counting) do
    local n, ends = read(rule.key)
    count({rule})
    local n_now, ends_now = read(rule.key)
    for _, value in ipairs({n or -1, ends or 0, n_now, ends_now}) do answer[#answer + 1] = value end
end
return answer
