-- Who is accounted for in this epoch, and what an account's base is.

local FOLD_ACCOUNTS = 2000 -- a closed writer with more accounts keeps its table until the epoch ends

local function base_forget(account)
  call('HDEL', account_key(account), 'base')
end

-- {'announce_totals', {account, total...}} -> {1}: a part of the table, in any order, repeatable.
function operations.announce_totals(pairs_of, epoch_meant)
  if epoch_meant ~= epoch then
    return {STALE}
  end
  totals_raise(writer, pairs_of)
  return {1}
end

-- {'announce_holds', {{grant, nano, account...}...}, epoch} -> {1}
function operations.announce_holds(holds, epoch_meant)
  if epoch_meant ~= epoch then
    return {STALE}
  end
  for _, hold in ipairs(holds) do
    hold_put(writer, hold[1], {unpack(hold, 2)})
    call('SADD', HOLDS .. writer .. ':said', hold[1])
  end
  return {1}
end

-- {'announce', epoch} -> {1}: the table is whole, and holds that were not said are not held.
function operations.announce(epoch_meant)
  if epoch_meant ~= epoch or call('SISMEMBER', MONEY .. 'closed', writer) == 1 then
    return {STALE}
  end
  local said = HOLDS .. writer .. ':said'
  for _, grant in ipairs(call('HKEYS', HOLDS .. writer)) do
    if call('SISMEMBER', said, grant) == 0 then
      hold_drop(writer, grant)
    end
  end
  call('DEL', said)
  if call('SADD', MONEY .. 'announced', writer) == 1 then
    call('INCR', MONEY .. 'version')
    if call('EXISTS', MONEY .. 'complete') == 1 then
      -- Loaded before we came: such a base may hold what we spent, and so does `spent` now.
      for _, account in ipairs(call('HKEYS', TOTALS .. writer)) do
        base_forget(account)
      end
    end
  end
  return {1}
end

-- {'complete', {living writer...}} -> {1}, or {0, who is missing...}
function operations.complete(living)
  local missing = {0}
  for _, name in ipairs(living) do
    if call('SISMEMBER', MONEY .. 'announced', name) == 0 then
      missing[#missing + 1] = name
    end
  end
  if #missing > 1 then
    return missing
  end
  call('SET', MONEY .. 'complete', 1)
  return {1}
end

-- Names the announced set of one epoch as it is now.
local function announced_version()
  return epoch .. '/' .. (call('GET', MONEY .. 'version') or 0)
end

-- {'announced'} -> {is complete, version, {writer...}, {those of them that are not heard of...}}
function operations.announced()
  local names = call('SMEMBERS', MONEY .. 'announced')
  local silent = {}
  for _, name in ipairs(names) do
    local is_silent = call('EXISTS', alive_key(name)) == 0
    if is_silent and call('SISMEMBER', MONEY .. 'closed', name) == 0 then
      silent[#silent + 1] = name
    end
  end
  return {call('EXISTS', MONEY .. 'complete'), announced_version(), names, silent}
end

-- {'load', account, version, nano, entry} -> {1}; {0} where the world has moved on: read again.
function operations.load(account, version, nano, entry)
  local key = account_key(account)
  local is_whole = is_announced and call('EXISTS', MONEY .. 'complete') == 1
  if not is_whole or announced_version() ~= version then
    return {0}
  end
  local known = call('HMGET', key, 'base', 'entry')
  if known[1] and tonumber(known[2]) > entry then
    return {0}
  end
  call('HSET', key, 'base', whole(nano), 'entry', whole(entry), 'at', whole(now))
  return {1}
end

-- {'credit', account, previous, entry, nano} -> {1} where it is in the balance now or is not loaded.
-- A credit that does not follow the last one makes the account be read again.
function operations.credit(account, previous, entry, nano)
  local known = call('HMGET', account_key(account), 'base', 'entry')
  if not known[1] or tonumber(known[2]) >= entry then
    return {1}
  end
  if tonumber(known[2]) ~= previous then
    base_forget(account)
    return {0}
  end
  account_change(account, 'base', nano)
  call('HSET', account_key(account), 'entry', whole(entry))
  return {1}
end

local function writer_fold(of)
  local known = call('HGETALL', TOTALS .. of)
  for index = 1, #known, 2 do
    local account, total = known[index], tonumber(known[index + 1])
    if call('HEXISTS', account_key(account), 'base') == 1 then
      account_change(account, 'base', -total)
    end
    account_change(account, 'spent', -total)
  end
  call('DEL', TOTALS .. of)
  call('SREM', MONEY .. 'announced', of)
  call('INCR', MONEY .. 'version')
end

-- {'close_writer', writer, {account, total...}, is_last} -> {1}: its journal is closed, its totals
-- are final. With the last part its holds go; what it spent moves from `spent` to `base`, so that
-- from now on PostgreSQL says it.
function operations.close_writer(of, pairs_of, is_last)
  if call('SISMEMBER', MONEY .. 'announced', of) == 0 then
    return {1}
  end
  totals_raise(of, pairs_of)
  if is_last == 0 then
    return {1}
  end
  for _, grant in ipairs(call('HKEYS', HOLDS .. of)) do
    hold_drop(of, grant)
  end
  call('SADD', MONEY .. 'closed', of)
  if call('HLEN', TOTALS .. of) <= FOLD_ACCOUNTS then
    writer_fold(of)
  end
  return {1}
end
