-- An epoch is one life of one Redis: '<number>-<run id>-<microseconds>'. A server that was restarted
-- or promoted has another run id, one that was flushed has no marker, one that is behind (an old
-- primary that came back) has a lower number than its callers have seen.

local function epoch_number(epoch)
  return tonumber(string.match(epoch, '^%d+')) or 0
end

local function epoch_is_over(marker, seen)
  if not marker then
    return true
  end
  if run_id ~= '' and string.match(marker, '%-(.-)%-') ~= run_id then
    return true
  end
  return seen ~= '' and seen ~= marker and epoch_number(seen) >= epoch_number(marker)
end

local epoch = call('GET', PREFIX .. 'epoch')
if writer == '' then -- somebody who only looks
  epoch = epoch or ''
elseif epoch_is_over(epoch, header[3]) then
  local number = math.max(epoch_number(epoch or ''), epoch_number(header[3])) + 1
  epoch = whole(number) .. '-' .. run_id .. '-' .. whole(now_us)
  call('SET', PREFIX .. 'epoch', epoch)
end

-- Money's keys carry the epoch: a new one starts from nothing rather than from something stale.
local MONEY = PREFIX .. 'money:' .. epoch .. ':'
-- Who is known here may settle, whatever its connection believes; who takes has to have announced
-- itself on this very connection.
local is_known = call('SISMEMBER', MONEY .. 'announced', writer) == 1
local is_announced = is_known and announced_epoch == epoch
