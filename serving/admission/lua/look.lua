-- What there is, for metrics and the operators' page. Writes nothing.

-- {'look_pools'} -> {pool...}
function operations.look_pools()
  return call('SMEMBERS', PREFIX .. 'pools')
end

-- {'look_pool', pool} -> {slots, taken, waiting, bytes, average output, {waiting, us since the first
-- came; per tier}, {writer, what it reported...}}
function operations.look_pool(pool)
  local known = call('HMGET', queue_key(pool, 'state'), 'slots', 'bytes', 'average')
  local tiers = {}
  for tier = 1, TIERS do
    local arrivals = queue_key(pool, 'arrivals:' .. tier)
    local first = call('ZRANGE', arrivals, 0, 0, 'WITHSCORES')
    tiers[#tiers + 1] = call('ZCARD', arrivals)
    tiers[#tiers + 1] = #first > 0 and now_us - tonumber(first[2]) or 0
  end
  local reports = call('HGETALL', PREFIX .. 'load:' .. pool)
  local alive = {}
  for index = 1, #reports, 2 do
    if call('EXISTS', alive_key(reports[index])) == 1 then
      alive[#alive + 1] = reports[index]
      alive[#alive + 1] = reports[index + 1]
    end
  end
  return {
    tonumber(known[1] or 0), call('ZCOUNT', slots_key(pool), whole(now), '+inf'),
    call('HLEN', queue_key(pool, 'waiters')), tonumber(known[2] or 0),
    tonumber(known[3] or FIRST_AVERAGE), tiers, alive,
  }
end

-- {'look_account', account} -> {is loaded, base, spent, held}
function operations.look_account(account)
  local known = call('HMGET', account_key(account), 'base', 'spent', 'held')
  local numbers = {known[1] and 1 or 0}
  for index = 1, 3 do
    numbers[#numbers + 1] = tonumber(known[index] or 0)
  end
  return numbers
end

-- {'look_epoch'} -> {epoch, is complete, {announced writer, open holds...}}
function operations.look_epoch()
  local writers = {}
  for _, name in ipairs(call('SMEMBERS', MONEY .. 'announced')) do
    writers[#writers + 1] = name
    writers[#writers + 1] = call('HLEN', HOLDS .. name)
  end
  return {epoch, call('EXISTS', MONEY .. 'complete'), writers}
end
