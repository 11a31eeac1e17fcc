-- Writes a half that is not there. Answers whether it did.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
return write()
