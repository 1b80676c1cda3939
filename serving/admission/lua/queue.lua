-- The fair queue of a pool. Tiers are 1 premium, 2 standard, 3 free. Within a tier tenants are
-- ordered by virtual token counters (Sheng et al., OSDI 2024): service received, over weight.
--
--   queue:<pool>:state            hash: slots, bytes, passed (grants in a row that passed over a
--                                 lower tier), average (output tokens of a call), bytes:<tenant>
--   queue:<pool>:premium          there while premium calls come
--   queue:<pool>:waiters          hash: grant -> msgpack waiter
--   queue:<pool>:deadlines        sorted set: grant by when it stops waiting (ms)
--   queue:<pool>:counters:<tier>  hash: tenant -> service; '=last' -> who left the queue last
--   queue:<pool>:tenants:<tier>   sorted set: tenants that wait, by counter
--   queue:<pool>:arrivals:<tier>  sorted set: grant by arrival (us)
--   queue:<pool>:calls:<tier>:<tenant>  sorted set: the same of one tenant
-- A waiter is {writer, tier, tenant, weight, deadline_ms, bytes, input, output}.

local TIERS = 3
local SERVICE_OF_INPUT, SERVICE_OF_OUTPUT = 1, 2
local ONE_IN = 8 -- so many grants of a queue, one goes to a tier that is passed over
local RESERVED = 8 -- while premium calls come, one slot in so many is kept free for the next of them
local PREMIUM_MS = 60000
local FIRST_AVERAGE = 256
local SMOOTHING = 0.05
local IDLE_SECONDS = 3600
local MAY_FILL = {1, 0.75, 0.5} -- how much of a queue's bounds a tier may use

local function slots_key(pool)
  return PREFIX .. 'slots:' .. pool
end

local function queue_key(pool, name)
  return PREFIX .. 'queue:' .. pool .. ':' .. name
end

local function counters_key(pool, tier)
  return queue_key(pool, 'counters:' .. tier)
end

local function service_expected(pool, input_tokens, output_tokens)
  local average = tonumber(call('HGET', queue_key(pool, 'state'), 'average') or FIRST_AVERAGE)
  local output = math.min(average, output_tokens)
  return math.floor(SERVICE_OF_INPUT * input_tokens + SERVICE_OF_OUTPUT * output)
end

local function counter_raise(pool, tier, tenant, by)
  local key = counters_key(pool, tier)
  local counter = tonumber(call('HGET', key, tenant) or 0) + by
  if counter < 0 then
    counter = 0
  end
  call('HSET', key, tenant, string.format('%.3f', counter))
  call('EXPIRE', key, IDLE_SECONDS)
  if call('EXISTS', queue_key(pool, 'calls:' .. tier .. ':' .. tenant)) == 1 then
    call('ZADD', queue_key(pool, 'tenants:' .. tier), string.format('%.3f', counter), tenant)
  end
end

-- A tenant that comes back is lifted to those who wait, or to who left last: time away earns nothing.
local function counter_lift(pool, tier, tenant)
  local key = counters_key(pool, tier)
  local known = call('HMGET', key, tenant, '=last')
  local own, floor = tonumber(known[1] or 0), 0
  local least = call('ZRANGE', queue_key(pool, 'tenants:' .. tier), 0, 0, 'WITHSCORES')
  if #least > 0 then
    floor = tonumber(least[2])
  elseif known[2] and known[2] ~= tenant then
    floor = tonumber(call('HGET', key, known[2]) or 0)
  end
  if floor > own then
    call('HSET', key, tenant, string.format('%.3f', floor))
    own = floor
  end
  return own
end

local function slot_take(pool, grant, for_ms, tier, tenant, weight, service)
  lease_take(slots_key(pool), grant, for_ms)
  counter_raise(pool, tier, tenant, service / weight)
  call('HSET', counters_key(pool, tier), '=last', tenant)
end

local function waiter_remove(pool, grant, waiter)
  local tier, tenant, state = waiter[2], waiter[3], queue_key(pool, 'state')
  local calls = queue_key(pool, 'calls:' .. tier .. ':' .. tenant)
  call('HDEL', queue_key(pool, 'waiters'), grant)
  call('ZREM', queue_key(pool, 'deadlines'), grant)
  call('ZREM', queue_key(pool, 'arrivals:' .. tier), grant)
  call('ZREM', calls, grant)
  call('HINCRBY', state, 'bytes', -waiter[6])
  if call('ZCARD', calls) == 0 then
    call('ZREM', queue_key(pool, 'tenants:' .. tier), tenant)
    call('HDEL', state, 'bytes:' .. tenant)
  else
    call('HINCRBY', state, 'bytes:' .. tenant, -waiter[6])
  end
end

local function waiter_of(pool, grant)
  local packed = call('HGET', queue_key(pool, 'waiters'), grant)
  return packed and cmsgpack.unpack(packed)
end

local function purge(pool)
  local late = call('ZRANGEBYSCORE', queue_key(pool, 'deadlines'), '-inf', whole(now), 'LIMIT', 0, 64)
  for _, grant in ipairs(late) do
    waiter_remove(pool, grant, waiter_of(pool, grant))
  end
end

local function queue_has_room(pool, tier, tenant, bytes)
  local known = call('HMGET', queue_key(pool, 'state'), 'bytes', 'bytes:' .. tenant)
  local waiting = call('HLEN', queue_key(pool, 'waiters'))
  local own = call('ZCARD', queue_key(pool, 'calls:' .. tier .. ':' .. tenant))
  return waiting < bounds[1] * MAY_FILL[tier]
    and tonumber(known[1] or 0) + bytes <= bounds[2] * MAY_FILL[tier]
    and own < bounds[3]
    and tonumber(known[2] or 0) + bytes <= bounds[4]
end

-- `arrival_us` is now, or when a waiter that Redis has lost came first.
local function waiter_add(pool, grant, waiter, arrival_us)
  local tier, tenant, state = waiter[2], waiter[3], queue_key(pool, 'state')
  local counter = counter_lift(pool, tier, tenant)
  call('HSET', queue_key(pool, 'waiters'), grant, cmsgpack.pack(waiter))
  call('ZADD', queue_key(pool, 'deadlines'), whole(waiter[5]), grant)
  call('ZADD', queue_key(pool, 'arrivals:' .. tier), whole(arrival_us), grant)
  call('ZADD', queue_key(pool, 'calls:' .. tier .. ':' .. tenant), whole(arrival_us), grant)
  call('ZADD', queue_key(pool, 'tenants:' .. tier), string.format('%.3f', counter), tenant)
  call('HINCRBY', state, 'bytes', waiter[6])
  call('HINCRBY', state, 'bytes:' .. tenant, waiter[6])
end

-- Of the tiers below `above` that wait, the one whose first came first.
local function tier_passed_over(pool, above)
  local longest, since = nil, nil
  for tier = above + 1, TIERS do
    local first = call('ZRANGE', queue_key(pool, 'arrivals:' .. tier), 0, 0, 'WITHSCORES')
    if #first > 0 and (not since or tonumber(first[2]) < since) then
      longest, since = tier, tonumber(first[2])
    end
  end
  return longest
end

-- A slot is not taken from a call that has it. A burst of premium calls meets its aim only where
-- slots were kept free for it.
local function reserve_of(pool, slots)
  return call('EXISTS', queue_key(pool, 'premium')) * math.floor(slots / RESERVED)
end

local function premium_comes(pool)
  call('SET', queue_key(pool, 'premium'), 1, 'PX', PREMIUM_MS)
end

-- Whether a premium call may begin although lower tiers wait: until it is their turn.
local function may_pass_over(pool)
  local state = queue_key(pool, 'state')
  if call('EXISTS', queue_key(pool, 'arrivals:1')) == 1
    or tonumber(call('HGET', state, 'passed') or 0) + 1 >= ONE_IN
  then
    return false
  end
  call('HINCRBY', state, 'passed', 1)
  return true
end

-- `is_reserved`: the slot is one of those kept for premium calls.
local function tier_next(pool, is_reserved)
  local top = nil
  for tier = TIERS, 1, -1 do
    if call('EXISTS', queue_key(pool, 'arrivals:' .. tier)) == 1 then
      top = tier
    end
  end
  if is_reserved and top and top > 1 then
    return nil
  end
  local below = top and tier_passed_over(pool, top)
  if not below then
    return top
  end
  if call('HINCRBY', queue_key(pool, 'state'), 'passed', 1) < ONE_IN then
    return top
  end
  call('HSET', queue_key(pool, 'state'), 'passed', 0)
  return below
end

local function waiter_grant(pool, grant, waiter)
  local service = service_expected(pool, waiter[7], waiter[8])
  slot_take(pool, grant, claim_ms, waiter[2], waiter[3], waiter[4], service)
  if waiter[1] == writer then
    own_grants[#own_grants + 1] = {pool, grant, service}
    return
  end
  local stream = PREFIX .. 'push:' .. waiter[1]
  call('XADD', stream, 'MAXLEN', '~', 4096, '*', 'pool', pool, 'grant', grant, 'charged', service)
  call('EXPIRE', stream, 60)
end

-- Free slots go to those who wait, in order. A waiter whose time is over or whose process is silent
-- is passed over for good.
local function dispatch(pool)
  if call('EXISTS', queue_key(pool, 'waiters')) == 0 then
    return
  end
  local slots = tonumber(call('HGET', queue_key(pool, 'state'), 'slots') or 0)
  local free, reserve = slots - lease_count(slots_key(pool)), reserve_of(pool, slots)
  while free > 0 do
    local tier = tier_next(pool, free <= reserve)
    if not tier then
      return
    end
    local tenant = call('ZRANGE', queue_key(pool, 'tenants:' .. tier), 0, 0)[1]
    local grant = call('ZRANGE', queue_key(pool, 'calls:' .. tier .. ':' .. tenant), 0, 0)[1]
    local waiter = waiter_of(pool, grant)
    waiter_remove(pool, grant, waiter)
    local is_alive = waiter[1] == writer or call('EXISTS', alive_key(waiter[1])) == 1
    if is_alive and waiter[5] > now then
      waiter_grant(pool, grant, waiter)
      free = free - 1
    end
  end
end

local function slots_are(pool, slots)
  local state = queue_key(pool, 'state')
  if tonumber(call('HGET', state, 'slots') or -1) ~= slots then
    call('HSET', state, 'slots', slots)
  end
end
