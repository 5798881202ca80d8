"""What the Lua scripts have in common: the clock, the generation, what is retained.

Law: which generation a log is in is found out in each script anew, in the same moment
in which it is read or written. Numbers stay below 2**53, where Lua counts exactly.

The keys, behind the log's prefix:

* ``m``: a hash: ``g`` the generation, ``s`` its newest number, ``b`` the number before
  its first one, ``r`` the replication id it was begun under, ``f`` the forks as
  ``generation:number``, ``i`` whether anything was ever appended, ``fl`` the newest
  number of a channel that was forgotten, ``x`` how often losses were reported;
* ``l``: a sorted set: the newest number of each channel;
* ``n``: a hash: how many bytes each channel holds;
* ``x``: a hash: the newest lost number of channels that lost any;
* ``c:CHANNEL``: a stream: the channel's entries, with their number as the id, the
  number before (``p``), the time in milliseconds (``t``) and the event (``d``);
* ``i:HASH``: what an idempotency key has published;
* ``e:NAME``: a hash: a lease's number ``n``, holder ``h``, end ``u``, last wish ``w``.
"""

from __future__ import annotations

__all__ = ("COMMON", "FLOOR", "GENERATION", "RETAIN", "Script", "script")

import hashlib
from typing import Final, NamedTuple


class Script(NamedTuple):
    """A script.

    Attributes:
        source: Its text.
        sha: By what Redis knows it once it has it.
    """

    source: bytes
    sha: bytes


def script(*parts: str) -> Script:
    """Return the script of these parts."""
    source = "".join(parts).encode()
    return Script(
        source, hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()
    )


COMMON: Final = """
local call, num = redis.call, function(n) return string.format('%.0f', n) end
local time = call('TIME')
local micros = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = math.floor(micros / 1000)
"""

# KEYS: 1 m 2 l 3 n 4 x. The generation goes on while the replication id is the same;
# a restart, a promotion and another server change it. What is here then is what
# survived: numbers leap above all that may have been given out, and the place of the
# leap is a fork. Where the log itself is gone, no place in it means anything.
GENERATION: Final = """
local function identity()
  local info = redis.pcall('INFO', 'replication')
  if type(info) == 'string' then
    if string.find(info, 'role:slave', 1, true) then return nil end
    local id = string.match(info, 'master_replid:(%w+)')
    if id then return id end
  end
  info = redis.pcall('INFO', 'server')
  return type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
end

local function generation(fresh)
  local id = identity()
  if not id then return redis.error_reply('READONLY this Redis is a replica') end
  local m = call('HMGET', KEYS[1], 'g', 's', 'r', 'i')
  local g, s = m[1], tonumber(m[2] or '0')
  local whole = g and (not m[4] or call('EXISTS', KEYS[2]) == 1)
  if whole and (id == '' or id == m[3]) then return nil, g, s end
  local start = num(math.max(s + 1048576, micros))
  if whole then
    local forks = (call('HGET', KEYS[1], 'f') or '') .. ' ' .. g .. ':' .. num(s)
    local kept = {}
    for fork in string.gmatch(forks, '%S+') do kept[#kept + 1] = fork end
    forks = table.concat(kept, ' ', math.max(1, #kept - 15))
    call('HSET', KEYS[1], 'g', fresh, 's', start, 'b', start, 'r', id, 'f', forks)
  else
    call('HSET', KEYS[1], 'g', fresh, 's', start, 'b', start, 'r', id, 'f', '')
    call('HDEL', KEYS[1], 'i', 'fl')
    call('DEL', KEYS[2], KEYS[3], KEYS[4])
  end
  return nil, fresh, tonumber(start)
end
"""

# Drops the oldest entries that are over the bounds, and returns the number of the
# newest one that is gone.
RETAIN: Final = """
local function retain(key, channel, last, events, oldest, bytes)
  local len = call('XLEN', key)
  if len == 0 then return last end
  local total = tonumber(call('HGET', KEYS[3], channel) or '0')
  local dropped, from, count = false, '-', 2
  while true do
    local part = call('XRANGE', key, from, '+', 'COUNT', count)
    for _, entry in ipairs(part) do
      local f = entry[2]
      local over = len > events or (bytes > 0 and total > bytes and len > 1)
      if not over and tonumber(f[4]) > oldest then
        if dropped then
          call('XTRIM', key, 'MINID', entry[1])
          call('HSET', KEYS[3], channel, total)
        end
        return tonumber(f[2])
      end
      len, total, dropped, from = len - 1, total - #f[6], true, '(' .. entry[1]
    end
    if #part < count then
      call('DEL', key)
      return last
    end
    count = 64
  end
end
"""

# The number of the newest entry that is gone, or too old. Reading drops nothing, for
# a Redis that takes no writes is still read.
FLOOR: Final = """
local function floor_of(key, last, oldest)
  local from, count = '-', 1
  while true do
    local part = call('XRANGE', key, from, '+', 'COUNT', count)
    for _, entry in ipairs(part) do
      if tonumber(entry[2][4]) > oldest then return tonumber(entry[2][2]) end
      from = '(' .. entry[1]
    end
    if #part < count then return last end
    count = 64
  end
end
"""
