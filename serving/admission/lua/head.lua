-- Admission: every operation of one event-loop tick of one gateway process, in order, atomically.
--
-- The files of this folder are put together in the order that script.py states.
--
-- KEYS[1]  prefix of all keys of this cell
-- ARGV[1]  msgpack: {header, {operation...}}; an operation is a list that begins with its name
--   header = {writer, announced, seen, run_id, lease_ms, claim_ms, bounds}
--     announced  the epoch in which this connection has announced the writer; '' before that
--     seen       the newest epoch the writer has ever seen; '' for none
--     run_id     that of the server, as INFO said on this connection; '' where it may not be asked
--     bounds     {waiters, bytes, waiters of one tenant, bytes of one tenant} of a pool's queue
--
-- Returns {microseconds now, epoch ('' where it is the announced one), own grants, answer...}; own
-- grants are those to waiters of the calling process: {pool, grant, charged} each.
-- Time is Redis' own. Nothing is written before all of an operation's checks have passed.

local call = redis.call
local PREFIX = KEYS[1]
local request = cmsgpack.unpack(ARGV[1])
local header = request[1]
local writer, announced_epoch, run_id = header[1], header[2], header[4]
local lease_ms, claim_ms, bounds = header[5], header[6], header[7]

local clock = call('TIME')
local now_us = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local now = math.floor(now_us / 1000)

local REFUSED, GRANTED, QUEUED, NEEDS, STALE = 0, 1, 2, 3, 4
local ALIVE_MS = 3000 -- a process that said nothing for so long is not given anything

local operations = {}
local own_grants = {}

local function whole(number)
  return string.format('%.0f', number)
end

local function alive_key(of)
  return PREFIX .. 'alive:' .. of
end

-- A set of grants by the end of their lease (ms): slots of a pool, running calls of a subject.
local function lease_take(key, grant, for_ms)
  call('ZADD', key, whole(now + for_ms), grant)
  call('PEXPIRE', key, lease_ms * 2)
end

local function lease_count(key)
  call('ZREMRANGEBYSCORE', key, '-inf', whole(now))
  return call('ZCARD', key)
end
