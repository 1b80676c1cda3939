-- Settlements and departures free memory: they pass even when the server has none left, because
-- their first write is a removal. Whatever takes something is refused as a whole, by this one.
local frees = {settle = true, leave = true}
local takes = false
for _, operation in ipairs(request[2]) do
  takes = takes or not frees[operation[1]]
end
if takes and writer ~= '' then
  call('SET', alive_key(writer), 1, 'PX', ALIVE_MS)
end

local answers = {now_us, is_announced and '' or epoch, own_grants}
for _, operation in ipairs(request[2]) do
  answers[#answers + 1] = operations[operation[1]](unpack(operation, 2))
end
return answers
