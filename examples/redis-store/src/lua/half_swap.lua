-- Writes a half while its refresh token is the one that is expected. Answers whether it did.
if redis.call('HGET', KEYS[1], 'refresh') ~= ARGV[2] then return 0 end
return write()
