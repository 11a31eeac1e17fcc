-- KEYS: what `guess` counted. ARGV: the time, and of each key what stood there and what stood there then. What others have
-- counted since stays.
for i, key in ipairs(KEYS) do
    local at = 4 * i - 2
    local n, ends = read(key)
    if n == tonumber(ARGV[at + 2]) and ends == tonumber(ARGV[at + 3]) then
        if tonumber(ARGV[at]) < 0 then
            redis.call('DEL', key)
        else
            write(key, tonumber(ARGV[at]), tonumber(ARGV[at + 1]))
        end
    elseif n and n > 0 and ends == tonumber(ARGV[at + 3]) then
        write(key, n - 1, ends)
    end
end
