-- What a gateway asks for. A subject is {id, requests per minute, tokens per minute, concurrency,
-- account, budget, is hard}; -1 is no limit, '' no account. A demand is {input tokens, output tokens
-- per answer, answers, nano per input token, nano per output token}. A place is {tenant, tier,
-- weight, wait_ms, bytes}.

local function running_key(subject)
  return PREFIX .. 'running:' .. subject
end

-- Checks every limit. A refusal, or nil and what the arrival times become; the tightest of each.
local function limits_check(subjects, tokens)
  local arrivals, requests, all_tokens, refusal = {}, {0, 0, 0}, {0, 0, 0}, nil
  for index, subject in ipairs(subjects) do
    local id, wait = subject[1], 0
    if subject[2] >= 0 then
      local key = requests_key(id)
      local after
      after, wait = rate_after(key, subject[2], 1)
      arrivals[#arrivals + 1] = {key, after, subject[2]}
      if wait > 0 and not refusal then
        refusal = {REFUSED, 'requests_per_minute', math.ceil(wait / 1000), index}
      end
      requests = rate_tighter(requests, subject[2], wait > 0 and rate_read(key) or after)
    end
    if subject[3] >= 0 then
      local key = tokens_key(id)
      local after
      after, wait = rate_after(key, subject[3], tokens)
      arrivals[#arrivals + 1] = {key, after, subject[3]}
      if wait > 0 and not refusal then
        refusal = {REFUSED, 'tokens_per_minute', math.ceil(wait / 1000), index}
      end
      all_tokens = rate_tighter(all_tokens, subject[3], wait > 0 and rate_read(key) or after)
    end
    if subject[4] >= 0 and not refusal and lease_count(running_key(id)) >= subject[4] then
      refusal = {REFUSED, 'concurrency', 1000, index}
    end
  end
  return refusal, arrivals, {requests, all_tokens}
end

local function with_allowance(answer, allowance)
  for _, kind in ipairs(allowance) do
    for _, value in ipairs(kind) do
      answer[#answer + 1] = value
    end
  end
  return answer
end

local function limits_take(subjects, arrivals, grant)
  for _, arrival in ipairs(arrivals) do
    rate_write(arrival[1], arrival[2])
  end
  for _, subject in ipairs(subjects) do
    if subject[4] >= 0 then
      lease_take(running_key(subject[1]), grant, lease_ms)
    end
  end
end

-- {'admit', grant, pool, slots, {subject...}, demand, place, is_final}
--   -> {REFUSED, reason, retry_ms, index of the subject or 0, allowance...}
--    | {GRANTED, output_tokens, charged, unchecked accounts, allowance..., arrival...}
--    | {QUEUED, output_tokens, position, unchecked accounts, allowance..., arrival...}
--    | {NEEDS, account} | {STALE}
-- allowance: limit, remaining, us until whole; of requests, then of tokens; limit 0 where none.
-- arrival: what each limit's arrival time has become, in the order of the subjects.
function operations.admit(grant, pool, slots, subjects, demand, place, is_final)
  local output_tokens, against, unchecked = money_check(subjects, demand, is_final == 1)
  if against and against[1] ~= REFUSED then
    return against
  end
  local output_in_all = demand[3] * (output_tokens or demand[2])
  local refusal, arrivals, allowance = limits_check(subjects, demand[1] + output_in_all)
  refusal = refusal or against
  if refusal then
    return with_allowance(refusal, allowance)
  end
  slots_are(pool, slots)
  dispatch(pool)
  local tenant, tier, weight = place[1], place[2], place[3]
  local kept = 0
  if tier == 1 then
    premium_comes(pool)
  else
    kept = reserve_of(pool, slots)
  end
  local is_free = lease_count(slots_key(pool)) < slots - kept
    and (call('EXISTS', queue_key(pool, 'waiters')) == 0 or tier == 1 and may_pass_over(pool))
  if not is_free then
    if place[4] <= 0 then
      return with_allowance({REFUSED, 'pool_full', 1000, 0}, allowance)
    end
    purge(pool)
    if not queue_has_room(pool, tier, tenant, place[5]) then
      return with_allowance({REFUSED, 'queue_full', 2000, 0}, allowance)
    end
  end
  limits_take(subjects, arrivals, grant)
  hold_take(grant, subjects, cost_bound(demand, output_tokens))
  local answer
  if is_free then
    counter_lift(pool, tier, tenant)
    local service = service_expected(pool, demand[1], output_in_all)
    slot_take(pool, grant, lease_ms, tier, tenant, weight, service)
    answer = {GRANTED, output_tokens, service, unchecked}
  else
    local waiter = {writer, tier, tenant, weight, now + place[4], place[5], demand[1], output_in_all}
    waiter_add(pool, grant, waiter, now_us)
    if tier == 1 then
      dispatch(pool)
    end
    answer = {QUEUED, output_tokens, call('HLEN', queue_key(pool, 'waiters')), unchecked}
  end
  with_allowance(answer, allowance)
  for _, arrival in ipairs(arrivals) do
    answer[#answer + 1] = arrival[2]
  end
  return answer
end

-- {'shrink', grant, {subject...}, tokens held, tokens, nano, cost now} -> {1}
function operations.shrink(grant, subjects, held, tokens, nano)
  for _, subject in ipairs(subjects) do
    rate_correct(tokens_key(subject[1]), subject[3], held, math.min(tokens, math.max(subject[3], 0)))
  end
  local packed = is_known and call('HGET', HOLDS .. writer, grant)
  if packed then
    local record = cmsgpack.unpack(packed)
    record[1] = nano
    hold_put(writer, grant, record)
  end
  return {1}
end

local function let_go(grant, pool, subjects)
  call('ZREM', slots_key(pool), grant)
  for _, subject in ipairs(subjects) do
    if subject[4] >= 0 then
      call('ZREM', running_key(subject[1]), grant)
    end
  end
end

-- {'settle', grant, pool, {subject...}, tokens held, tokens used, place, charged, service, output,
--  {account, total...}} -> {1}. Repeatable but for the tokens; `tokens held` -1 corrects none.
-- `charged` and `service`: what the tenant's counter was raised by, and what it came to.
function operations.settle(
  grant, pool, subjects, held, used, place, charged, service, output, totals
)
  let_go(grant, pool, subjects)
  if held >= 0 then
    for _, subject in ipairs(subjects) do
      rate_correct(tokens_key(subject[1]), subject[3], held, used)
    end
    if charged ~= service then
      counter_raise(pool, place[2], place[1], (service - charged) / place[3])
    end
    if output > 0 then
      local state = queue_key(pool, 'state')
      local average = tonumber(call('HGET', state, 'average') or output)
      call('HSET', state, 'average', string.format('%.3f', average + SMOOTHING * (output - average)))
    end
  end
  if is_known then
    totals_raise(writer, totals)
    hold_drop(writer, grant)
  end
  dispatch(pool)
  return {1}
end

-- {'leave', grant, pool, {subject...}, tokens held} -> {1}: it never started, so nothing counts.
function operations.leave(grant, pool, subjects, held)
  local waiter = waiter_of(pool, grant)
  if waiter then
    waiter_remove(pool, grant, waiter)
  end
  let_go(grant, pool, subjects)
  if held >= 0 then
    for _, subject in ipairs(subjects) do
      rate_correct(tokens_key(subject[1]), subject[3], held, 0)
      rate_correct(requests_key(subject[1]), subject[2], 1, 0)
    end
  end
  if is_known then
    hold_drop(writer, grant)
  end
  dispatch(pool)
  return {1}
end

-- {'claim', pool, grant} -> {1}; {0} where the grant has lapsed.
function operations.claim(pool, grant)
  local until_ms = call('ZSCORE', slots_key(pool), grant)
  if not until_ms or tonumber(until_ms) <= now then
    return {0}
  end
  lease_take(slots_key(pool), grant, lease_ms)
  return {1}
end

-- {'wait', pool, grant, place, deadline_ms, arrival_us, input tokens, output tokens} -> {1}:
-- a waiter that Redis may have lost waits again, where it stood.
function operations.wait(pool, grant, place, deadline_ms, arrival_us, input, output)
  local is_known = call('HEXISTS', queue_key(pool, 'waiters'), grant) == 1
  if not is_known and not call('ZSCORE', slots_key(pool), grant) then
    local waiter = {writer, place[2], place[1], place[3], deadline_ms, place[5], input, output}
    waiter_add(pool, grant, waiter, arrival_us)
  end
  return {1}
end

-- {'pump', {pool, slots...}} -> {1}: the slots of these pools are so many now.
function operations.pump(pools)
  for index = 1, #pools, 2 do
    slots_are(pools[index], pools[index + 1])
    purge(pools[index])
    dispatch(pools[index])
  end
  return {1}
end

-- {'renew', {{pool, grant...}...}, {{subject, grant...}...}} -> {number of slots}; enters what was lost.
function operations.renew(pools, subjects)
  local held = 0
  for _, entry in ipairs(pools) do
    for index = 2, #entry do
      lease_take(slots_key(entry[1]), entry[index], lease_ms)
      held = held + 1
    end
  end
  for _, entry in ipairs(subjects) do
    for index = 2, #entry do
      lease_take(running_key(entry[1]), entry[index], lease_ms)
    end
  end
  return {held}
end

-- {'rates', {key, arrival_us, more_us...}} -> {1}: what the process knows of limits that Redis has
-- lost, and what it let pass in the meantime on its own.
function operations.rates(known)
  for index = 1, #known, 3 do
    local key = PREFIX .. known[index]
    local arrival = math.max(rate_read(key), known[index + 1]) + known[index + 2]
    rate_write(key, math.min(arrival, now_us + MINUTE))
  end
  return {1}
end

-- {'report', {{pool, json}...}} -> {1}: what this process has in hand, for who looks.
function operations.report(pools)
  for _, entry in ipairs(pools) do
    call('SADD', PREFIX .. 'pools', entry[1])
    call('HSET', PREFIX .. 'load:' .. entry[1], writer, entry[2])
    call('EXPIRE', PREFIX .. 'load:' .. entry[1], IDLE_SECONDS)
  end
  return {1}
end

-- {'beat'} -> {1}: the process is alive; every call says so.
function operations.beat()
  return {1}
end
