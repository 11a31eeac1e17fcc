-- Counts a failed sign-in. Answers the wait when the guard refuses, and then nothing is counted.
bring_back(rules(1, many))
local _, longest = used_up(guarding)
if longest then return longest end
count(guarding)
return false
