-- Admission: every operation of one event-loop tick of one gateway process, in order, atomically.
--
-- KEYS[1]  prefix of all keys of this cell
-- ARGV[1]  msgpack: a list of operations, each a list beginning with its name
--   {"admit", grant, pool, slots, lease_ms}   ->  {1}  or  {0, reason, retry_ms}
--   {"settle", grant, pool}                   ->  {1} when it was held, {0} when not: repeatable
--   {"renew", lease_ms, {{pool, grant...}}}   ->  {number held}; enters what Redis has lost
--
-- Returns {microseconds now, answer...}. Time is Redis' own.
-- A pool's slots are a sorted set: member = grant, score = when its lease runs out (ms).

local clock = redis.call('TIME')
local now_us = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local now = math.floor(now_us / 1000)

local function slots_key(pool)
  return KEYS[1] .. 'slots:' .. pool
end

local function take(key, grant, lease_ms)
  redis.call('ZADD', key, now + lease_ms, grant)
  redis.call('PEXPIRE', key, lease_ms * 2)
end

local operations = {}

function operations.admit(grant, pool, slots, lease_ms)
  local key = slots_key(pool)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  if redis.call('ZCARD', key) >= slots then
    return {0, 'pool_full', 1000}
  end
  take(key, grant, lease_ms)
  return {1}
end

function operations.settle(grant, pool)
  return {redis.call('ZREM', slots_key(pool), grant)}
end

function operations.renew(lease_ms, pools)
  local held = 0
  for _, entry in ipairs(pools) do
    local key = slots_key(entry[1])
    for i = 2, #entry do
      take(key, entry[i], lease_ms)
      held = held + 1
    end
  end
  return {held}
end

local answers = {now_us}
for _, operation in ipairs(cmsgpack.unpack(ARGV[1])) do
  answers[#answers + 1] = operations[operation[1]](unpack(operation, 2))
end
return answers
