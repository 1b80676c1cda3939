-- GCRA, one number per limit: the theoretical arrival time in microseconds. A bucket holds one
-- minute's worth. A call that is larger than the whole bucket passes when the bucket is full.

local MINUTE = 60000000

local function requests_key(subject)
  return PREFIX .. 'requests:' .. subject
end

local function tokens_key(subject)
  return PREFIX .. 'tokens:' .. subject
end

local function rate_read(key)
  return math.max(tonumber(call('GET', key) or 0), now_us)
end

local function rate_write(key, arrival)
  if arrival <= now_us then
    call('DEL', key)
  else
    call('SET', key, whole(arrival), 'PX', whole(math.ceil((arrival - now_us) / 1000)))
  end
end

local function rate_time(limit, units)
  return math.ceil(math.min(units, limit) * MINUTE / limit)
end

-- The arrival time after `units` more, and how long to wait (us) until they fit.
local function rate_after(key, limit, units)
  if limit == 0 then
    return now_us + MINUTE, MINUTE
  end
  local after = rate_read(key) + rate_time(limit, units)
  return after, after - now_us - MINUTE
end

-- What was held turns out to be less (or more): `held` units become `used`.
local function rate_correct(key, limit, held, used)
  if limit <= 0 or held == used then
    return
  end
  local by = math.min(held, limit) - used
  rate_write(key, rate_read(key) - math.floor(by * MINUTE / limit))
end

-- {limit, remaining, us until it is whole again} of the tighter of two; `limit` 0 is none.
local function rate_tighter(known, limit, arrival)
  local remaining = math.floor((MINUTE - (arrival - now_us)) * limit / MINUTE)
  if remaining < 0 then
    remaining = 0
  end
  if known[1] == 0 or remaining < known[2] then
    return {limit, remaining, arrival - now_us}
  end
  return known
end
