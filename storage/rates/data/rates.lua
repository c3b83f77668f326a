-- How fast one model at one endpoint is asked with one key, by all processes together. ARGV: what to do, then what all
-- of it needs, then its own. Times are the server's, in seconds; rates are per minute.
--
--   penstock:rates            set of NAMEs
--   penstock:rates:NAME       hash: what is known, two buckets (u: kept for searches, b: for the rest) of requests (r)
--                             and tokens (t), until when nobody asks, and counts
--   penstock:rates-users:NAME sorted set of processes by the time when they last asked

local doing, name = ARGV[1], ARGV[2]
local KEY, USERS, NAMES = 'penstock:rates:' .. name, 'penstock:rates-users:' .. name, 'penstock:rates'
local KEPT_S, USER_S = 86400, 60
local BURST_S, URGENT = 10, 0.1       -- of what a bucket holds at most, and of that the part for searches
local AFRESH, CUT, LEAST = 0.5, 0.5, 1 / 64
local RECOVERED = 0.1 / 60            -- of the whole rate, each second
local LEAST_MEASURED = 60
local BEYOND = 4                      -- of a rate that was only measured: beyond, there is none
local LONGEST_BLOCK_S, LONGEST_PAUSE_S = 3600, 60

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local state = {}
local found = redis.call('HGETALL', KEY)
for place = 1, #found, 2 do state[found[place]] = found[place + 1] end
local fresh = #found == 0

local function number(field, default) return tonumber(state[field]) or default end

local share = number('share', AFRESH)
local cut_at, blocked_until = number('cut_at', 0), number('until', 0)
local strikes = number('strikes', 0)
local told = { r = tonumber(ARGV[3]), t = tonumber(ARGV[4]) }       -- by a setting: never more; 0: nothing
local expected = { r = tonumber(ARGV[5]), t = tonumber(ARGV[6]) }   -- until the endpoint says; 0: nothing

-- The whole rate of a kind per minute, and whether it was only measured; nil: none is known.
local function whole(kind)
  local rate = number('learnt_' .. kind, 0)
  if rate <= 0 then rate = expected[kind] end
  if told[kind] > 0 and (rate <= 0 or told[kind] < rate) then rate = told[kind] end
  if rate > 0 then return rate, false end
  rate = number('measured_' .. kind, 0)
  if rate > 0 then return rate, true end
  return nil, false
end

local function known() return (whole('r')) or (whole('t')) end

local function only_measured()
  local _, requests = whole('r')
  local _, tokens = whole('t')
  return requests or tokens
end

local function forget_measured()
  state.measured_r, state.measured_t = nil, nil
  redis.call('HDEL', KEY, 'measured_r', 'measured_t')
end

local function per_second(kind)
  local rate = whole(kind)
  return rate and rate * share / 60
end

-- What the buckets of a kind hold at most: for searches, and for the rest.
local function most(kind)
  local both = per_second(kind) * BURST_S
  return math.max(URGENT * both, 1), math.max((1 - URGENT) * both, 1)
end

local level = {} -- by kind: for searches (u) and for the rest (b)

local function advance()
  local at = number('at', now)
  local passed = math.max(0, now - math.max(at, blocked_until))
  local ceiling = only_measured() and BEYOND or 1
  share = math.min(ceiling, share + RECOVERED * math.max(0, now - at))
  if only_measured() and share >= BEYOND then forget_measured() end
  if now - math.max(cut_at, blocked_until) > 60 then strikes = 0 end
  for _, kind in ipairs({ 'r', 't' }) do
    local rate = per_second(kind)
    if rate then
      local most_u, most_b = most(kind)
      local u, b = number('u' .. kind, most_u), number('b' .. kind, 0)
      local came = rate * passed
      local to_u = math.min(came, math.max(0, most_u - u))
      level[kind] = { u = math.min(most_u, u + to_u), b = math.min(most_b, b + came - to_u) }
    end
    local flow = number('flow_' .. kind, 0) * math.exp(-math.max(0, now - at) / 60)
    state['flow_' .. kind] = flow
  end
end

local function save()
  local values = {
    'at', string.format('%.6f', now), 'share', share, 'cut_at', string.format('%.6f', cut_at),
    'until', string.format('%.6f', blocked_until), 'strikes', strikes, 'flow_r', state.flow_r, 'flow_t', state.flow_t,
  }
  for kind, here in pairs(level) do
    for bucket, amount in pairs(here) do
      values[#values + 1] = bucket .. kind
      values[#values + 1] = string.format('%.6f', amount)
    end
  end
  for _, kind in ipairs({ 'r', 't' }) do
    values[#values + 1] = 'whole_' .. kind
    values[#values + 1] = whole(kind) or 0
  end
  redis.call('HSET', KEY, unpack(values))
  redis.call('EXPIRE', KEY, KEPT_S)
end

-- What an endpoint said with an answer, ``age_s`` ago: its limits, and how much of them was left.
local function learn(first)
  local age_s = tonumber(ARGV[first + 4])
  for place, kind in ipairs({ 'r', 't' }) do
    local limit, left = tonumber(ARGV[first + place - 1]), tonumber(ARGV[first + place + 1])
    if limit > 0 then
      state['learnt_' .. kind] = limit
      redis.call('HSET', KEY, 'learnt_' .. kind, limit)
    end
    local here, rate = level[kind], per_second(kind)
    if rate and not here then -- it is known since now
      local most_u, most_b = most(kind)
      level[kind] = { u = most_u, b = math.min(most_b, math.max(0, left - most_u)) }
    elseif left >= 0 and here then
      local excess = here.u + here.b - (left + rate * age_s)
      if excess > 0 then -- somebody else asks with this key
        local from_b = math.min(excess, math.max(0, here.b))
        here.b, here.u = here.b - from_b, math.min(here.u, math.max(0, here.u - (excess - from_b)))
      end
    end
  end
end

local function count(field) redis.call('HINCRBY', KEY, field, 1) end

local function answer(granted, wait_s, blocked)
  local rates = {}
  for _, kind in ipairs({ 'r', 't' }) do
    local rate = per_second(kind)
    rates[#rates + 1] = rate and tostring(rate * 60) or ''
  end
  return {
    granted and 1 or 0, tostring(math.max(0, wait_s)), blocked and 1 or 0, string.format('%.6f', now), rates[1], rates[2],
    redis.call('ZCARD', USERS),
  }
end

-- For each kind which bucket gives, and how long until it can.
local function plan(need, urgent)
  local gives, wait_s = {}, 0
  for kind, here in pairs(level) do
    local rate = per_second(kind)
    local most_u, most_b = most(kind)
    local lacks_u = math.min(need[kind], most_u) - here.u
    local lacks_b = math.min(need[kind], most_b) - here.b
    gives[kind] = (urgent and (lacks_u <= 0 or lacks_b > 0)) and 'u' or 'b'
    local lacks = gives[kind] == 'u' and lacks_u or lacks_b
    if lacks > 0 then
      if gives[kind] == 'b' then lacks = lacks + math.max(0, most_u - here.u) end -- searches are filled up first
      wait_s = math.max(wait_s, lacks / rate)
    end
  end
  return gives, wait_s
end

-- ARGV 7: process, 8: model, 9: endpoint, 10: requests, 11: tokens, 12: urgent, 13: longest wait, 14: what was learnt
local function take()
  redis.call('ZADD', USERS, now, ARGV[7])
  redis.call('ZREMRANGEBYSCORE', USERS, '-inf', now - USER_S)
  redis.call('EXPIRE', USERS, KEPT_S)
  if fresh then
    redis.call('SADD', NAMES, name)
    redis.call('HSET', KEY, 'model', ARGV[8], 'endpoint', ARGV[9])
  end
  learn(14)
  local need = { r = tonumber(ARGV[10]), t = tonumber(ARGV[11]) }
  local gives, refill_s = plan(need, ARGV[12] == '1')
  local blocked_s = math.max(0, blocked_until - now)
  local wait_s = blocked_s + refill_s
  if wait_s > tonumber(ARGV[13]) then
    count('held')
    return answer(false, wait_s, blocked_s > 0)
  end
  for kind, bucket in pairs(gives) do level[kind][bucket] = level[kind][bucket] - need[kind] end
  state.flow_r, state.flow_t = state.flow_r + need.r, state.flow_t + need.t
  count(wait_s > 0 and 'delayed' or 'granted')
  return answer(true, wait_s, blocked_s > 0)
end

-- ARGV 7: when it was taken, 8: what the endpoint wishes in seconds or -1, 9: else the first pause, 10: what was learnt
local function refused()
  if tonumber(ARGV[7]) > cut_at then -- else it was asked before the last cut, which it could not know of
    if not known() then
      local times = math.max(1, LEAST_MEASURED / math.max(1, state.flow_r)) -- it may have begun just now
      for _, kind in ipairs({ 'r', 't' }) do
        state['measured_' .. kind] = math.max(1, state['flow_' .. kind] * times)
        redis.call('HSET', KEY, 'measured_' .. kind, state['measured_' .. kind])
      end
      share = 1
    end
    share, cut_at, strikes = math.max(LEAST, share * CUT), now, strikes + 1
  end
  local wish_s = tonumber(ARGV[8])
  local pause_s = math.min(LONGEST_PAUSE_S, tonumber(ARGV[9]) * 2 ^ (math.max(1, strikes) - 1))
  blocked_until = math.max(blocked_until, now + (wish_s >= 0 and math.min(wish_s, LONGEST_BLOCK_S) or pause_s))
  learn(10)
  for kind in pairs({ r = 1, t = 1 }) do
    if per_second(kind) then
      local here = level[kind] or { u = 0, b = 0 }
      level[kind] = { u = math.min(here.u, 1), b = math.min(here.b, 0) }
    end
  end
  count('refused')
  return answer(false, blocked_until - now, true)
end

-- After a wait: whether the endpoint refused somebody meanwhile. ARGV 7: requests, 8: tokens
local function confirm()
  local blocked_s = blocked_until - now
  if blocked_s <= 0 then return answer(true, 0, false) end
  local need = { r = tonumber(ARGV[7]), t = tonumber(ARGV[8]) }
  for kind, here in pairs(level) do here.b = here.b + need[kind] end
  count('held')
  return answer(false, blocked_s, true)
end

advance()
local result
if doing == 'take' then result = take() elseif doing == 'refused' then result = refused() else result = confirm() end
save()
return result
