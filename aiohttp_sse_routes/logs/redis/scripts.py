"""The Lua scripts by which the log in Redis is written and read.

Law: what must hold together is one script, which Redis runs whole or not at all: each
that writes makes its first write one that Redis refuses where it would refuse any. What
reads writes nothing, but for beginning a generation. `lua` has the keys.
"""

from __future__ import annotations

__all__ = (
    "APPEND",
    "CHANGED",
    "LEASE",
    "NEWEST",
    "READ",
    "RELEASE",
    "REPORT",
    "SCRIPTS",
    "STATUS",
)

from typing import Final

from .lua import COMMON, FLOOR, GENERATION, RETAIN, script

# KEYS: m l n x c:CHANNEL [i:HASH] [e:NAME]
# ARGV: 1 fresh generation 2 Pub/Sub channel 3 channel 4 prefix of streams
#       5 max_events 6 max_age ms 7 max_bytes or 0 8 ms to remember the key, or 0
#       9 who asks 10 fence's number or '' 11 channels to remember 12.. events
APPEND: Final = script(
    COMMON,
    GENERATION,
    RETAIN,
    """
local failed, g, s = generation(ARGV[1])
if failed then return failed end
local known, channel, stream = ARGV[8] ~= '0' and KEYS[6], ARGV[3], KEYS[5]
if ARGV[10] ~= '' then
  local held = call('HMGET', KEYS[#KEYS], 'n', 'u')
  if held[1] ~= ARGV[10] or tonumber(held[2]) <= now then return 'F' end
end
if known then
  local before = call('GET', known)
  if before then return 'R ' .. before end
end
local last = call('ZSCORE', KEYS[2], channel)
if not last then
  call('HSET', KEYS[1], 's', num(s))
  call('DEL', stream)
  local over = call('ZCARD', KEYS[2]) - tonumber(ARGV[11])
  while over > 0 do
    local old = call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
    if call('EXISTS', ARGV[4] .. old[1]) == 1 then break end
    call('ZREM', KEYS[2], old[1])
    call('HDEL', KEYS[3], old[1])
    call('HSET', KEYS[1], 'fl', num(tonumber(old[2])))
    over = over - 1
  end
  last = call('HGET', KEYS[1], 'fl') or '0'
end
local prev, first = tonumber(last), s + 1
local head = {'E', g, num(first), num(prev), #channel}
s = s + #ARGV - 11
call('HSET', KEYS[1], 's', num(s), 'i', '1')
local bytes = 0
if call('EXISTS', stream) == 1 then
  bytes = tonumber(call('HGET', KEYS[3], channel) or '0')
end
local n = first
for i = 12, #ARGV do
  call('XADD', stream, num(n) .. '-0', 'p', num(prev), 't', num(now), 'd', ARGV[i])
  bytes, head[#head + 1] = bytes + #ARGV[i], #ARGV[i]
  prev, n = n, n + 1
end
call('HSET', KEYS[3], channel, bytes)
call('ZADD', KEYS[2], num(s), channel)
local oldest = now - tonumber(ARGV[6])
retain(stream, channel, s, tonumber(ARGV[5]), oldest, tonumber(ARGV[7]))
call('PEXPIRE', stream, ARGV[6])
local done = g .. ' ' .. num(first) .. ' ' .. num(s) .. ' ' .. ARGV[9]
if known then call('SET', known, done, 'PX', ARGV[8]) end
call('PUBLISH', ARGV[2],
  table.concat(head, ' ') .. '\\n' .. channel .. table.concat(ARGV, '', 12))
return 'A ' .. done
""",
)

# KEYS: m l n x c:CHANNEL... ARGV: 1 fresh generation 2 after 3 through 4 limit
#       5 max_age ms 6.. channels
# Returns generation, newest number, forks, place, floors as 'index number ...', and for
# each entry 'index number previous event'.
READ: Final = script(
    COMMON,
    GENERATION,
    FLOOR,
    """
local failed, g, s = generation(ARGV[1])
if failed then return failed end
local after, place = tonumber(ARGV[2]), tonumber(ARGV[3])
local limit, oldest = tonumber(ARGV[4]), now - tonumber(ARGV[5])
local m = call('HMGET', KEYS[1], 'f', 'fl')
local floors, pool, size = {}, {}, 0

local function collect(index, key, at)
  local got, count = 0, 1
  while at < place do
    local part = call('XRANGE', key, '(' .. num(at) .. '-0', num(place) .. '-0',
      'COUNT', count)
    for _, entry in ipairs(part) do
      local f = entry[2]
      at = tonumber(string.match(entry[1], '%d+'))
      pool[#pool + 1] = {at, index, f[2], f[6]}
      got = got + #f[6]
    end
    if #part < count then break end
    if got > limit then
      place = at
      break
    end
    count = math.max(1, math.min(128, math.floor((limit - got) * #part / (got + 1))))
  end
  size = size + got
end

local function cut()
  table.sort(pool, function(a, b) return a[1] < b[1] end)
  local kept, sum = {}, 0
  for _, item in ipairs(pool) do
    if item[1] > place then break end
    if #kept > 0 and sum + #item[4] > limit then
      place = kept[#kept][1]
      break
    end
    sum = sum + #item[4]
    kept[#kept + 1] = item
  end
  pool, size = kept, sum
end

for i = 6, #ARGV do
  local index, key = i - 5, KEYS[i - 1]
  local last = tonumber(call('ZSCORE', KEYS[2], ARGV[i]))
  local floor = tonumber(m[2] or '0')
  if last and last > after then
    floor = floor_of(key, last, oldest)
    collect(index, key, math.max(after, floor))
    if size > limit then cut() end
  elseif last then
    floor = 0
  end
  if floor > after then floors[#floors + 1] = index .. ' ' .. num(floor) end
end
cut()
local out = {g, num(s), m[1], num(place), table.concat(floors, ' ')}
for _, item in ipairs(pool) do
  out[#out + 1] = item[2] .. ' ' .. num(item[1]) .. ' ' .. item[3] .. ' ' .. item[4]
end
return out
""",
)

# KEYS: m l n x c:CHANNEL... ARGV: 1 fresh generation 2 count 3 through 4 max_age ms
#       5.. channels
NEWEST: Final = script(
    COMMON,
    GENERATION,
    FLOOR,
    """
local failed = generation(ARGV[1])
if failed then return failed end
local count, through = tonumber(ARGV[2]), tonumber(ARGV[3])
local found, least = {}, 0
for i = 5, #ARGV do
  local last = tonumber(call('ZSCORE', KEYS[2], ARGV[i]))
  if last then
    local floor = floor_of(KEYS[i], last, now - tonumber(ARGV[4]))
    local part = call('XREVRANGE', KEYS[i], num(through) .. '-0',
      num(math.max(least, floor + 1)) .. '-0', 'COUNT', count)
    for _, entry in ipairs(part) do
      found[#found + 1] = tonumber(string.match(entry[1], '%d+'))
    end
    table.sort(found, function(a, b) return a > b end)
    for n = #found, count + 1, -1 do found[n] = nil end
    if #found == count then least = found[count] end
  end
end
return #found == 0 and num(through) or num(found[#found] - 1)
""",
)

# KEYS: m l n x ARGV: 1 fresh generation
STATUS: Final = script(
    COMMON,
    GENERATION,
    """
local failed, g, s = generation(ARGV[1])
if failed then return failed end
local m = call('HMGET', KEYS[1], 'b', 'f', 'x')
return {g, num(s), m[1], m[2], m[3] or '0'}
""",
)

# KEYS: m l ARGV: 1 after 2 how many
CHANGED: Final = script(
    """
return redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[1], '+inf', 'WITHSCORES',
  'LIMIT', 0, ARGV[2])
"""
)

# KEYS: m x ARGV: 1 Pub/Sub channel 2 ms to remember 3.. channel, number, ...
REPORT: Final = script(
    """
for i = 3, #ARGV, 2 do
  local before = tonumber(redis.call('HGET', KEYS[2], ARGV[i]) or '0')
  if tonumber(ARGV[i + 1]) > before then
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  end
end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
redis.call('HINCRBY', KEYS[1], 'x', 1)
redis.call('PUBLISH', ARGV[1], 'L')
return 1
"""
)

# KEYS: e:NAME ARGV: 1 holder 2 ms 3 '1' if wanted 4 ms to remember
# A number is above Redis' clock: also where a failover forgot who had the last one, no
# two holders have the same.
LEASE: Final = script(
    COMMON,
    """
local held = call('HMGET', KEYS[1], 'n', 'h', 'u', 'w')
local n, h, u, w = held[1], held[2], tonumber(held[3] or '0'), held[4]
if ARGV[3] == '1' then w = num(now) end
if u <= now then
  n, h = num(math.max(tonumber(n or '0') + 1, micros)), ARGV[1]
  u = now
end
if h == ARGV[1] then u = now + tonumber(ARGV[2]) end
call('HSET', KEYS[1], 'n', n, 'h', h, 'u', num(u), 'w', w or '')
call('PEXPIRE', KEYS[1], math.max(tonumber(ARGV[4]), u - now))
local wish = w and w ~= '' and num(now - tonumber(w)) or ''
return {h == ARGV[1] and n or '', wish}
""",
)

# KEYS: e:NAME ARGV: 1 number
RELEASE: Final = script(
    """
if redis.call('HGET', KEYS[1], 'n') == ARGV[1] then
  redis.call('HSET', KEYS[1], 'u', '0')
end
return 1
"""
)

SCRIPTS: Final = (
    APPEND,
    READ,
    NEWEST,
    STATUS,
    CHANGED,
    REPORT,
    LEASE,
    RELEASE,
)
"""All of them, as each new connection makes them known to its server."""
