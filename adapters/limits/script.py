"""What runs inside Redis or Valkey: checks and charges as one step, and the renewal of leases."""

# KEYS: one for each charge. ARGV: the time in microseconds (empty: the server's), whether it is enforced (1), the
# lease, how long it holds in microseconds, and for each charge: cost, amount, period in seconds (0: what runs).
# Answer: whether all was taken, and for each charge what was used before. What is no bucket or no set counts as empty.
NOW = """
local now = tonumber(ARGV[1])
if not now then
  local t = redis.call('TIME')
  now = t[1] * 1000000 + t[2]
end
"""

TAKE = (
    NOW
    + """
local enforced, lease, lease_us = ARGV[2] == '1', ARGV[3], tonumber(ARGV[4])
local allowed, used = true, {}
for i, key in ipairs(KEYS) do
  local cost, amount, period = tonumber(ARGV[2 + 3 * i]), tonumber(ARGV[3 + 3 * i]), tonumber(ARGV[4 + 3 * i])
  local fits
  if period == 0 then
    redis.pcall('ZREMRANGEBYSCORE', key, '-inf', now)
    local running = redis.pcall('ZCARD', key)
    if type(running) ~= 'number' then
      redis.call('DEL', key)
      running = 0
    end
    used[i], fits = running, running < amount
  else
    local value, u, at = redis.pcall('GET', key), 0, now
    if type(value) == 'string' then
      local left, right = string.match(value, '^(%S+) (%S+)$')
      u, at = tonumber(left) or 0, tonumber(right) or now
      if u ~= u or u == math.huge then u = 0 end
    end
    u = math.max(0, u - math.max(0, now - at) * amount / (period * 1000000))
    used[i], fits = u, u + math.min(cost, amount) <= amount + 1e-6
  end
  if enforced and not fits then allowed = false end
end
local answer = {allowed and 1 or 0}
for i, key in ipairs(KEYS) do
  local cost, amount, period = tonumber(ARGV[2 + 3 * i]), tonumber(ARGV[3 + 3 * i]), tonumber(ARGV[4 + 3 * i])
  answer[i + 1] = string.format('%.17g', used[i])
  if allowed and period == 0 then
    redis.call('ZADD', key, now + lease_us, lease)
    redis.call('PEXPIRE', key, math.ceil(lease_us / 1000))
  elseif allowed then
    local u = used[i] + cost
    if u > 0 then
      local ttl_ms = math.ceil(u * period * 1000 / amount) + 1000
      redis.call('SET', key, string.format('%.17g %.17g', u, now), 'PX', ttl_ms)
    else
      redis.call('DEL', key)
    end
  end
end
return answer
"""
)

# KEYS: sets of leases. ARGV: the time, how long a lease holds in microseconds, and the lease in each set.
RENEW = (
    NOW
    + """
for i, key in ipairs(KEYS) do
  redis.call('ZADD', key, now + tonumber(ARGV[2]), ARGV[2 + i])
  redis.call('PEXPIRE', key, math.ceil(tonumber(ARGV[2]) / 1000))
end
return #KEYS
"""
)
