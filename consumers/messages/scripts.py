"""How does a message get from one state to the next, so that nobody else gets it there too?

Every change is one script of the server, which compares the state, and who holds the message,
before it writes. Keys, all behind one prefix: `message:<id>` is the row; `decisions:<id>` a list of
decisions in JSON; `wake` says when to look at which message again; `state:<state>` which messages
are in a state and since when; `person:<pid>` which are of a person, for as long as one of them is
there, so that an erasure finds it; `sent:<pid>` what went to them when, for the limits by day and
week; `undeliverable:<pid>` at which addresses nobody is, as channels said; `outbox:<id>` and
`outbox` what would have gone; `positions` how far topics are read.
"""

from schemas.held import Layout, held

_COMMON = """
local prefix = ARGV[1]
local function note(id, decision, at)
  local key = prefix .. 'decisions:' .. id
  local mark = string.match(decision, '^{"state":"[a-z]+","rule":"[a-z_]*"')
  local last = redis.call('LINDEX', key, -1)
  if last and string.sub(last, 1, #mark) == mark then redis.call('LSET', key, -1, decision)
  else redis.call('RPUSH', key, decision) end
end
local function move(id, from, to, at)
  if from then redis.call('ZREM', prefix .. 'state:' .. from, id) end
  redis.call('ZADD', prefix .. 'state:' .. to, at, id)
  redis.call('HSET', prefix .. 'message:' .. id, 'state', to, 'at', at)
end
local function finish(id, ttl)
  local row = prefix .. 'message:' .. id
  redis.call('HDEL', row, 'owner', 'body')
  redis.call('PEXPIRE', row, ttl)
  redis.call('PEXPIRE', prefix .. 'decisions:' .. id, ttl)
  local person = prefix .. 'person:' .. redis.call('HGET', row, 'pid')
  for _, each in ipairs(redis.call('ZRANGE', person, 0, -1)) do
    if redis.call('PTTL', prefix .. 'message:' .. each) == -1 then return end
  end
  redis.call('PEXPIRE', person, ttl)
end
"""

# ARGV prefix, id, now ms, ttl ms, due ms, decision, pid, then fields and values of the row. Answers
# 1 if it is new.
SCHEDULE = (
    _COMMON
    + """
local id, now, due, pid = ARGV[2], ARGV[3], ARGV[5], ARGV[7]
local row = prefix .. 'message:' .. id
if redis.call('EXISTS', row) == 1 then return 0 end
redis.call('HSET', row, 'pid', pid, unpack(ARGV, 8))
move(id, nil, 'scheduled', now)
note(id, ARGV[6], now)
redis.call('ZADD', prefix .. 'wake', due, id)
local person = prefix .. 'person:' .. pid
redis.call('ZADD', person, due, id)
redis.call('PERSIST', person)
for _, old in ipairs(redis.call('ZRANGEBYSCORE', person, '-inf', tonumber(now) - ARGV[4])) do
  if redis.call('EXISTS', prefix .. 'message:' .. old) == 0 then
    redis.call('ZREM', person, old)
  end
end
return 1
"""
)

# ARGV prefix, now ms, most, owner, lease until ms, decision of an interrupted one, ttl ms. Answers
# id, 1 if it was interrupted, and the row as HGETALL does, of each that is now the owner's.
CLAIM = (
    _COMMON
    + """
local now, owner, lease = ARGV[2], ARGV[4], ARGV[5]
local found = {}
local due = redis.call('ZRANGEBYSCORE', prefix .. 'wake', '-inf', now, 'LIMIT', 0, ARGV[3])
for _, id in ipairs(due) do
  local row = prefix .. 'message:' .. id
  local state = redis.call('HGET', row, 'state')
  local is_over = 0
  if not state then
    redis.call('ZREM', prefix .. 'wake', id)
  else
    if state == 'sending' and redis.call('HGET', row, 'repeat') ~= '1' then
      is_over = 1
      move(id, state, 'failed', now)
      note(id, ARGV[6], now)
      finish(id, ARGV[7])
      redis.call('ZREM', prefix .. 'wake', id)
    else
      redis.call('ZADD', prefix .. 'wake', lease, id)
      redis.call('HSET', row, 'owner', owner)
      if state ~= 'sent' and state ~= 'failed' then
        move(id, state, 'claimed', now)
        redis.call('HINCRBY', row, 'tries', 1)
      end
    end
    found[#found + 1] = {id, is_over, redis.call('HGETALL', row)}
  end
end
return found
"""
)

# ARGV prefix, id, owner, now ms, lease until ms, decision, pids with commas, channel, day began ms,
# week began ms, most a day, most a week. Answers {'sending'}, {'lost'}, or 'day' or 'week' and how
# many went. Only here do limits count, so two messages at once are not both the last one.
BEGIN = (
    _COMMON
    + """
local id, now, channel = ARGV[2], ARGV[4], ARGV[8]
local row = prefix .. 'message:' .. id
local held = redis.call('HMGET', row, 'state', 'owner', 'pid')
if held[1] ~= 'claimed' or held[2] ~= ARGV[3] then return {'lost'} end
local mine = channel .. ':' .. id
local function count(since)
  local n = 0
  for pid in string.gmatch(ARGV[7], '[^,]+') do
    for _, each in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'sent:' .. pid, since, '+inf')) do
      if each ~= mine and string.sub(each, 1, #channel + 1) == channel .. ':' then n = n + 1 end
    end
  end
  return n
end
if tonumber(ARGV[11]) > 0 then
  local today = count(ARGV[9])
  if today >= tonumber(ARGV[11]) then return {'day', today} end
  local week = count(ARGV[10])
  if week >= tonumber(ARGV[12]) then return {'week', week} end
  local sent = prefix .. 'sent:' .. held[3]
  redis.call('ZADD', sent, now, mine)
  redis.call('ZREMRANGEBYSCORE', sent, '-inf', tonumber(now) - 864000000)
  redis.call('PEXPIRE', sent, 864000000)
end
move(id, 'claimed', 'sending', now)
note(id, ARGV[6], now)
redis.call('ZADD', prefix .. 'wake', ARGV[5], id)
return {'sending'}
"""
)

# ARGV prefix, id, owner, states it may be in with commas, new state, now ms, wake at ms or "", ttl
# ms if it is over else "", decision, channel to take back from the limits or "", channel and mark
# of an address where nobody is or "". Answers 1, or 0 if it is not ours to move.
MOVE = (
    _COMMON
    + """
local id, to, now, wake = ARGV[2], ARGV[5], ARGV[6], ARGV[7]
local row = prefix .. 'message:' .. id
local held = redis.call('HMGET', row, 'state', 'owner', 'pid')
if not held[1] or held[2] ~= ARGV[3] then return 0 end
if not string.find(',' .. ARGV[4] .. ',', ',' .. held[1] .. ',', 1, true) then return 0 end
move(id, held[1], to, now)
note(id, ARGV[9], now)
if wake == '' then redis.call('ZREM', prefix .. 'wake', id)
else redis.call('ZADD', prefix .. 'wake', wake, id) end
if ARGV[10] ~= '' then redis.call('ZREM', prefix .. 'sent:' .. held[3], ARGV[10] .. ':' .. id) end
if ARGV[11] ~= '' then redis.call('HSET', prefix .. 'undeliverable:' .. held[3], ARGV[11], now) end
if ARGV[8] ~= '' then
  redis.call('HDEL', row, 'body')
  if wake == '' then finish(id, ARGV[8]) else redis.call('HDEL', row, 'owner') end
  redis.call('ZREMRANGEBYSCORE', prefix .. 'state:' .. to, '-inf', tonumber(now) - ARGV[8])
end
return 1
"""
)

# ARGV prefix, id, owner, ttl ms. What there was to be told of it was told.
TOLD = (
    _COMMON
    + """
local row = prefix .. 'message:' .. ARGV[2]
local owner = redis.call('HGET', row, 'owner')
if owner and owner ~= ARGV[3] then return 0 end
redis.call('ZREM', prefix .. 'wake', ARGV[2])
if redis.call('EXISTS', row) == 1 then finish(ARGV[2], ARGV[4]) end
return 1
"""
)

# ARGV prefix, pid. Nothing is left of the person; answers how many
# keys there were.
FORGET = """
local prefix, pid = ARGV[1], ARGV[2]
local states = {'scheduled', 'claimed', 'sending', 'sent', 'held', 'failed', 'dropped'}
local ids, n = redis.call('ZRANGE', prefix .. 'person:' .. pid, 0, -1), 0
for _, id in ipairs(ids) do
  for _, state in ipairs(states) do
    redis.call('ZREM', prefix .. 'state:' .. state, id)
  end
  redis.call('ZREM', prefix .. 'wake', id)
  redis.call('ZREM', prefix .. 'outbox', id)
  n = n + redis.call('DEL', prefix .. 'message:' .. id, prefix .. 'decisions:' .. id,
                     prefix .. 'outbox:' .. id)
end
return n + redis.call('DEL', prefix .. 'person:' .. pid, prefix .. 'sent:' .. pid,
                      prefix .. 'undeliverable:' .. pid)
"""

_KEPT = "until the person is erased, at most [sending] keep_days"
_PURPOSES = "advertising, accountability"
LAYOUT = (
    Layout(
        "message:{id}",
        "sending",
        _KEPT,
        (
            held("pid", "identifier", _PURPOSES, "Pseudonym of the person"),
            held("kind", "technical", _PURPOSES, "journey or segment"),
            held("source", "behaviour", _PURPOSES, "Which journey or segment it comes from"),
            held("step", "technical", _PURPOSES, "Which message of the journey"),
            held("channel", "technical", _PURPOSES, "email, or the name of a webhook"),
            held("campaign", "technical", _PURPOSES, "The campaign that it belongs to"),
            held("due", "technical", _PURPOSES, "When it was due"),
            held("body", "behaviour", "advertising", "The cart it is about, until it is over"),
            held("state", "technical", _PURPOSES, "How far it is"),
            held("at", "technical", _PURPOSES, "Since when"),
            held("owner", "technical", "operation", "Which process works on it"),
            held("tries", "technical", "operation", "How often it was tried"),
            held("repeat", "technical", "operation", "1 if its channel knows repetitions"),
        ),
    ),
    Layout(
        "decisions:{id}",
        "sending",
        _KEPT,
        (held("value", "behaviour", "accountability", "What was decided over it, and by what"),),
    ),
    Layout(
        "person:{pid}",
        "sending",
        _KEPT,
        (held("value", "identifier", _PURPOSES, "Which messages are of the person"),),
    ),
    Layout(
        "sent:{pid}",
        "sending",
        "10 days after the newest",
        (held("value", "behaviour", "advertising", "What went to the person, for the limits"),),
    ),
    Layout(
        "undeliverable:{pid}",
        "sending",
        "until the person is erased",
        (
            held(
                "{channel}:{mark}",
                "identifier",
                "advertising",
                "Since when the channel refuses the address, by its keyed hash",
            ),
        ),
    ),
    Layout(
        "state:{state}",
        "sending",
        "[sending] keep_days",
        (held("value", "technical", "operation", "Which messages are in the state, since when"),),
    ),
    Layout(
        "wake",
        "sending",
        "until they are over",
        (held("value", "technical", "operation", "When to look at which message again"),),
    ),
    Layout(
        "outbox:{id}",
        "sending",
        "a day",
        (
            held("pid", "identifier", "operation", "Pseudonym of the person"),
            held("mail", "identifier", "operation", "The message as it would go", sealed=True),
        ),
    ),
    Layout(
        "outbox",
        "sending",
        "a day",
        (held("value", "technical", "operation", "Which messages are in the outbox"),),
    ),
    Layout(
        "positions",
        "sending",
        "as long as the store",
        (held("{topic}:{partition}", "technical", "operation", "Next record to read"),),
    ),
)
"""What these scripts write."""
