-- A limit is a hash: `n`, how often it was counted, and `e`, when its window ends. Times are microseconds and come by ARGV
-- alone. How long a key lives only tidies up: longer than what it holds, and no answer follows from it.
--
-- KEYS[i] is the limit of rule i, ARGV[2 * i] how often and ARGV[2 * i + 1] within how long. ARGV[1] is the time.
local now = tonumber(ARGV[1])
local DAY = 24 * 60 * 60 * 1000

local function text(number)
    return string.format('%.0f', number)
end

local function keep(key, micros)
    redis.call('PEXPIRE', key, text(math.max(micros, 0) / 1000 + DAY))
end

local function read(key)
    local row = redis.call('HMGET', key, 'n', 'e')
    if row[1] then return tonumber(row[1]), tonumber(row[2]) end
end

local function write(key, n, ends)
    redis.call('HSET', key, 'n', text(n), 'e', text(ends))
    keep(key, ends - now)
end

local function rule(i)
    return {key = KEYS[i], limit = tonumber(ARGV[2 * i]), window = tonumber(ARGV[2 * i + 1])}
end

local function rules(first, last)
    local all = {}
    for i = first, last do all[#all + 1] = rule(i) end
    return all
end

local function is_too_far(rule)
    local n, ends = read(rule.key)
    return n and ends > now + rule.window
end

-- Brings back the ends that a clock left too far away when it was set back.
local function bring_back(all)
    for _, rule in ipairs(all) do
        if is_too_far(rule) then write(rule.key, (read(rule.key)), now + rule.window) end
    end
end

-- How often a rule was counted in its open window, and how long that goes on.
local function counted(rule)
    local n, ends = read(rule.key)
    if not n or ends <= now then return 0, rule.window end
    return n, math.min(ends, now + rule.window) - now
end

-- How many rules are used up, and the longest wait of these, or nil.
local function used_up(all)
    local many, longest = 0, nil
    for _, rule in ipairs(all) do
        local n, left = counted(rule)
        if n >= rule.limit then
            many = many + 1
            longest = math.max(longest or left, left)
        end
    end
    return many, longest
end

-- The longest wait, by a look that changes nothing: the command that follows brings back what is too far, and decides.
local function look(all)
    local near = {}
    for _, rule in ipairs(all) do
        if not is_too_far(rule) then near[#near + 1] = rule end
    end
    local _, longest = used_up(near)
    return longest
end

local function count(all)
    for _, rule in ipairs(all) do
        local n, left = counted(rule)
        write(rule.key, n + 1, now + left)
    end
end
