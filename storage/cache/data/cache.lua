-- What must happen at once in the cache of vectors. ARGV: what to do, then what all of it needs, then lists.
--
--   penstock:embedding:NAME            the bytes of a vector; expires when it was not used for the time to live
--   penstock:embedding-index           sorted set of NAMEs by the time of their last use: what is over the limit
--   penstock:embedding-use[:SCOPE]     hash of counts, of all and of one scope
--   penstock:embedding-flight:NAME     token of whoever embeds this text now; void when its holder is gone
--   penstock:embedding-holder:TOKEN    lives as long as whoever holds flights renews it
--
-- NAME is SCOPE:MODEL:DIMENSIONS:DIGEST. Keys are made from names, so the server cannot be a cluster; neither can the
-- queue's.

local VECTOR, INDEX, USE = 'penstock:embedding:', 'penstock:embedding-index', 'penstock:embedding-use'
local FLIGHT, HOLDER = 'penstock:embedding-flight:', 'penstock:embedding-holder:'
local MOST = 2000 -- entries forgotten in one call at most: the server answers nobody else meanwhile
local FLIGHT_S = 3600

local doing, ttl_s, limit, token, lease_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5]
local who, FIRST_LIST = ARGV[6], 13
local counted = { hits = ARGV[7], misses = ARGV[8], damaged = ARGV[9], saved_tokens = ARGV[10] }
local saved_usd, ends = ARGV[11], ARGV[12] == '1'
local time = redis.call('TIME')
local now_us = string.format('%.0f', time[1] * 1000000 + time[2])
local changes = { [''] = { vectors = 0, size_bytes = 0, evicted = 0 } } -- of all, and by scope

-- What an allocator with four classes to each power of two takes for n bytes.
local function class(n)
  local power = 16
  while power * 2 < n do power = power * 2 end
  return math.ceil(n / (power / 4)) * (power / 4)
end

-- The scope of an entry, and all that it takes in keyspace, expiry and index: rather too much than too little.
local shelves = {} -- by the name without its digest, which most names of a call share
local function shelf_of(name)
  local shelf = string.sub(name, 1, -34)
  if not shelves[shelf] then
    local dimensions = tonumber(string.match(shelf, ':(%d+)$')) or 0
    local size = class(4 * dimensions + 24) + class(#name + 48) + class(#name + 24) + 240
    local scope = ':' .. string.match(name, '^[^:]+')
    changes[scope] = changes[scope] or { vectors = 0, size_bytes = 0, evicted = 0 }
    shelves[shelf] = { size = size, changes = changes[scope] }
  end
  return shelves[shelf]
end

-- Count an entry that came (1) or went (-1).
local function count(name, by)
  local shelf = shelf_of(name)
  for _, changed in ipairs({ changes[''], shelf.changes }) do
    changed.vectors = changed.vectors + by
    changed.size_bytes = changed.size_bytes + by * shelf.size
  end
end

local function used(name)
  if redis.call('ZADD', INDEX, now_us, name) == 1 then count(name, 1) end
end

local function drop(name)
  redis.call('DEL', VECTOR .. name)
  if redis.call('ZREM', INDEX, name) == 1 then count(name, -1) end
end

local function held_by(name)
  local holder = redis.call('GET', FLIGHT .. name)
  if holder and redis.call('EXISTS', HOLDER .. holder) == 1 then return holder end
  return nil
end

-- Forget what was used least lately until the rest is within the limit, and what the server forgot on its own.
local function trim()
  local size = tonumber(redis.call('HGET', USE, 'size_bytes') or '0')
  for _ = 1, MOST do
    local oldest = redis.call('ZRANGE', INDEX, 0, 0)[1]
    if not oldest then return end
    local gone = redis.call('EXISTS', VECTOR .. oldest) == 0
    if size + changes[''].size_bytes <= limit and not gone then return end
    drop(oldest)
    if not gone then
      local here = shelf_of(oldest).changes
      changes[''].evicted, here.evicted = changes[''].evicted + 1, here.evicted + 1
    end
  end
end

local function list(at)
  local names, count = {}, tonumber(ARGV[at])
  for place = at + 1, at + count do names[#names + 1] = ARGV[place] end
  return names, at + count + 1
end

-- Lists: found, damaged, missing. Returns for each that is missing 1 when the caller is to embed it.
local function look()
  local found, damaged, missing, at
  found, at = list(FIRST_LIST)
  damaged, at = list(at)
  missing, at = list(at)
  for _, name in ipairs(found) do
    if redis.call('EXPIRE', VECTOR .. name, ttl_s) == 1 then used(name) end
  end
  for _, name in ipairs(damaged) do drop(name) end
  local mine, any = {}, false
  for place, name in ipairs(missing) do
    if redis.call('EXISTS', VECTOR .. name) == 1 then
      mine[place] = 0 -- it came meanwhile
    else
      local holder = held_by(name)
      mine[place] = (holder and holder ~= token) and 0 or 1
      if mine[place] == 1 then redis.call('SET', FLIGHT .. name, token, 'EX', FLIGHT_S) end
      any = any or mine[place] == 1
    end
  end
  if any then redis.call('SET', HOLDER .. token, '1', 'PX', lease_ms) end
  return mine
end

-- A list: names and values by turns.
local function keep()
  local pairs_ = list(FIRST_LIST)
  for place = 1, #pairs_, 2 do
    local name = pairs_[place]
    redis.call('SET', VECTOR .. name, pairs_[place + 1], 'EX', ttl_s)
    used(name)
    if redis.call('GET', FLIGHT .. name) == token then redis.call('DEL', FLIGHT .. name) end
  end
  if ends then redis.call('DEL', HOLDER .. token) end
  return {}
end

local answer = {}
if doing == 'look' then answer = look() elseif doing == 'keep' then answer = keep() end
trim()
for scope, fields in pairs(changes) do
  for field, by in pairs(fields) do
    if by ~= 0 then redis.call('HINCRBY', USE .. scope, field, string.format('%.0f', by)) end
  end
end
if who ~= '' then
  for _, scope in ipairs({ '', ':' .. who }) do
    for field, by in pairs(counted) do
      if by ~= '0' then redis.call('HINCRBY', USE .. scope, field, by) end
    end
    if saved_usd ~= '0' then redis.call('HINCRBYFLOAT', USE .. scope, 'saved_usd', saved_usd) end
    redis.call('HSETNX', USE .. scope, 'since', time[1])
  end
end
return answer
