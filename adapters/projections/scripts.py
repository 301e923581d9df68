"""What runs inside Redis or Valkey: the only code that changes a context, so that two writers cannot mix theirs."""

from __future__ import annotations

from enum import IntEnum

FRAMES_MAX = 64
"""A context of as many writes is written anew, as one: reading a frame costs as much as reading several messages."""


class Verdict(IntEnum):
    """What the script did with a frame."""

    APPLIED = 1
    IGNORED = 0
    """The version is there already, or the context is too large to be kept."""
    GAP = -1
    """What the frame goes on from is not there."""
    FULL = -2
    """The context has too many frames, or would be too large: it is to be written as a whole."""


# KEYS: the context. ARGV: body, its checksum (below 0: it is known to be too large, and left out), the version that it
# goes on from (0: it is a whole context), the version after it, time to live in ms, largest value in bytes.
# A value whose end is no trailer counts as none; whoever reads it finds that out in full and deletes it.
WRITE = f"""
local version, frames, length = 0, 0, 0
local tail = redis.pcall('GETRANGE', KEYS[1], -16, -1)
if type(tail) == 'string' and #tail == 16 then
  local _
  _, _, version, frames = struct.unpack('>I4I4I4I4', tail)
  length = redis.call('STRLEN', KEYS[1])
end
local body, checksum, from, after = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local ttl_ms, bytes_max = tonumber(ARGV[5]), tonumber(ARGV[6])
if from == 0 then
  if frames > 0 and version >= after then return {Verdict.IGNORED:d} end
  if checksum < 0 or #body + 16 > bytes_max then
    redis.call('SET', KEYS[1], struct.pack('>I4I4I4I4', 0, 0, after, 0), 'PX', ttl_ms)
    return {Verdict.IGNORED:d}
  end
  redis.call('SET', KEYS[1], body .. struct.pack('>I4I4I4I4', checksum, #body, after, 1), 'PX', ttl_ms)
  return {Verdict.APPLIED:d}
end
if length == 16 and frames == 0 then return {Verdict.IGNORED:d} end
if version >= after then return {Verdict.IGNORED:d} end
if version ~= from then return {Verdict.GAP:d} end
if frames >= {FRAMES_MAX} or length + #body + 16 > bytes_max then return {Verdict.FULL:d} end
redis.call('APPEND', KEYS[1], body .. struct.pack('>I4I4I4I4', checksum, #body, after, frames + 1))
redis.call('PEXPIRE', KEYS[1], ttl_ms)
return {Verdict.APPLIED:d}
"""
