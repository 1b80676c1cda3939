-- Money of one epoch, in nano-USD, all below 2^53:
--   account:<account>  hash: base (credits less the spending of all who are not announced here; none
--                      while not loaded), at (ms of loading), entry (last credit in base),
--                      spent (by announced writers), held (by their open calls)
--   totals:<writer>    hash: account -> all that the writer ever spent; only grows
--   holds:<writer>     hash: grant -> msgpack {nano, account...}; without lease
--   announced          set of writers whose spending is in `spent` rather than in `base`
--   version            how often that set has changed
--   complete           there once the whole roster is accounted for

local HOLDS = MONEY .. 'holds:'
local TOTALS = MONEY .. 'totals:'
local RELOAD_MS = 5000 -- a refusal by a balance older than this reads the balance again

local function account_key(account)
  return MONEY .. 'account:' .. account
end

local function account_change(account, field, by)
  if by ~= 0 then
    call('HINCRBY', account_key(account), field, whole(by))
  end
end

local function cost_bound(demand, output_tokens)
  return demand[1] * demand[4] + demand[3] * output_tokens * demand[5]
end

-- The output limit that all accounts cover, and the answer that stands against the call, if any.
-- `is_final`: a refusal by an old balance stands; it could not be read again.
local function money_check(subjects, demand, is_final)
  local output_tokens, unchecked = demand[2], 0
  local least = cost_bound(demand, 1)
  for index, subject in ipairs(subjects) do
    local account, is_hard = subject[5], subject[7] == 1
    if account ~= '' and not is_announced then
      if is_hard then
        return nil, {STALE}
      end
      unchecked = unchecked + 1
    elseif account ~= '' then
      local known = call('HMGET', account_key(account), 'base', 'spent', 'held', 'at')
      if not known[1] then
        if is_hard then
          return nil, {NEEDS, account}
        end
        unchecked = unchecked + 1
      else
        local left = known[1] + subject[6] - (known[2] or 0) - (known[3] or 0)
        local is_short = is_hard and least > 0 and least > left or not is_hard and left <= 0
        if is_short and not is_final and now - known[4] > RELOAD_MS then
          return nil, {NEEDS, account}
        elseif is_short then
          local is_balance = account == subject[1]
          return nil, {REFUSED, is_balance and 'insufficient_balance' or 'budget_exceeded', 0, index}
        end
        local each = demand[3] * demand[5]
        if is_hard and each > 0 then
          local covered = math.floor((left - demand[1] * demand[4]) / each)
          output_tokens = math.min(output_tokens, covered)
        end
      end
    end
  end
  return output_tokens, nil, unchecked
end

local function hold_change(record, sign)
  for index = 2, #record do
    account_change(record[index], 'held', sign * record[1])
  end
end

local function hold_drop(of, grant)
  local packed = call('HGET', HOLDS .. of, grant)
  if packed then
    hold_change(cmsgpack.unpack(packed), -1)
    call('HDEL', HOLDS .. of, grant)
  end
end

-- Whatever was held by this id before is replaced.
local function hold_put(of, grant, record)
  hold_drop(of, grant)
  hold_change(record, 1)
  call('HSET', HOLDS .. of, grant, cmsgpack.pack(record))
end

local function hold_take(grant, subjects, nano)
  if not is_announced or nano == 0 then
    return
  end
  local record = {nano}
  for _, subject in ipairs(subjects) do
    if subject[5] ~= '' then
      record[#record + 1] = subject[5]
    end
  end
  if #record > 1 then
    hold_put(writer, grant, record)
  end
end

-- `pairs_of` is {account, total...}: what a writer spent since it began. Saying it twice is once.
local function totals_raise(of, pairs_of)
  for index = 1, #pairs_of, 2 do
    local account, total = pairs_of[index], pairs_of[index + 1]
    local known = tonumber(call('HGET', TOTALS .. of, account) or 0)
    if total > known then
      call('HSET', TOTALS .. of, account, whole(total))
      account_change(account, 'spent', total - known)
    end
  end
end
