-- KEYS after those of the guard: the session to open. Answers the wait when the guard refuses, or -1, and how many failures are to be forgiven. What
-- was opened before is not judged again.
if redis.call('EXISTS', KEYS[many + 2]) == 1 then return {-1, 0} end
bring_back(rules(1, many))
local _, longest = used_up(guarding)
return {longest or -1, (read(KEYS[1])) or 0}
