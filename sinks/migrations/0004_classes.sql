-- What each column holds of people, and for what: `CLASS for PURPOSES: meaning` (schemas/held.py).
-- The inventory reads it from here.

ALTER TABLE facts
    COMMENT COLUMN `campaign_id` 'behaviour for analytics: Campaign the event, or the visit, belongs to; (none) when it names none',
    COMMENT COLUMN `event_date` 'behaviour for analytics: Day of occurred_at, UTC',
    COMMENT COLUMN `generation` 'technical for operation: Incarnation of the log in which the event was accepted',
    COMMENT COLUMN `kp` 'technical for operation: Partition of events.accepted',
    COMMENT COLUMN `off` 'technical for operation: Offset in that partition',
    COMMENT COLUMN `idx` 'technical for operation: 0 is the event itself, 1 and up are the visits it changed',
    COMMENT COLUMN `pid` 'identifier for analytics: Pseudonym of the person',
    COMMENT COLUMN `event_id` 'technical for operation: Hash of source and messageId',
    COMMENT COLUMN `occurred_at` 'behaviour for analytics: When it happened; of a visit, when it started. Within 1970 to 2106: see sinks/rules/rows.py',
    COMMENT COLUMN `received_at` 'technical for operation: When the collector took the event',
    COMMENT COLUMN `metric` 'behaviour for analytics: What it adds to (schemas/counters.py); empty when to nothing',
    COMMENT COLUMN `value` 'behaviour for analytics: What it adds to that metric',
    COMMENT COLUMN `amount_micro` 'behaviour for analytics: What it adds to revenue (of orders) or refunded (of refunds), in millionths of currency',
    COMMENT COLUMN `currency` 'behaviour for analytics: ISO 4217 code of amount_micro; empty when there is no amount',
    COMMENT COLUMN `is_visitor` 'behaviour for analytics: 1 if it makes its person a visitor of the campaign',
    COMMENT COLUMN `src_topic` 'technical for operation: Input record behind this: topic',
    COMMENT COLUMN `src_partition` 'technical for operation: Input record behind this: partition',
    COMMENT COLUMN `src_offset` 'technical for operation: Input record behind this: offset',
    COMMENT COLUMN `lane` 'technical for operation: Lane that accepted it',
    COMMENT COLUMN `seq` 'technical for operation: Number of the transaction of that lane',
    COMMENT COLUMN `index` 'technical for operation: Position within that transaction',
    COMMENT COLUMN `source` 'technical for operation, accountability: Source of the write key that sent the event; empty in rows of before';

ALTER TABLE counters
    COMMENT COLUMN `campaign_id` 'technical for analytics: Campaign; of nobody: sums alone',
    COMMENT COLUMN `metric` 'technical for analytics: A count or an amount of money of schemas/counters.py',
    COMMENT COLUMN `currency` 'technical for analytics: ISO 4217 code of an amount; empty of a count',
    COMMENT COLUMN `minute` 'technical for analytics: Start of the minute of event time',
    COMMENT COLUMN `generation` 'technical for operation: Incarnation of the log behind it',
    COMMENT COLUMN `kp` 'technical for operation: Partition of events.accepted behind it',
    COMMENT COLUMN `value` 'technical for analytics: Sum over every fact of this key with off <= last_off; money in millionths. Wide, so that no sum of hostile amounts ever fails to be stored',
    COMMENT COLUMN `last_off` 'technical for operation: Offset of the newest fact in the sum; the version of this row';

ALTER TABLE progress
    COMMENT COLUMN `sink` 'technical for operation: Name of the role',
    COMMENT COLUMN `generation` 'technical for operation: [kafka] generation of the role when it wrote this',
    COMMENT COLUMN `topic` 'technical for operation: What it reads',
    COMMENT COLUMN `kp` 'technical for operation: Partition of topic',
    COMMENT COLUMN `next_off` 'technical for operation: First offset not yet counted; the version of this row',
    COMMENT COLUMN `records` 'technical for operation: Records counted since this generation began',
    COMMENT COLUMN `lanes` 'technical for operation: Tripwire: of each lane the highest (generation, seq, index) counted',
    COMMENT COLUMN `updated_at` 'technical for operation: When this was written';

ALTER TABLE verdicts
    COMMENT COLUMN `topic` 'technical for operation: The events.accepted behind the counters',
    COMMENT COLUMN `checked_at` 'technical for operation: When the look ended',
    COMMENT COLUMN `differences` 'technical for operation: 0: live = verified',
    COMMENT COLUMN `counters` 'technical for operation: Counter rows compared',
    COMMENT COLUMN `facts` 'technical for operation: Facts counted again',
    COMMENT COLUMN `took_ms` 'technical for operation: How long the look took',
    COMMENT COLUMN `next_by` 'technical for operation: The next look has ended by then, unless nobody looks';

ALTER TABLE migrations
    COMMENT COLUMN `number` 'technical for operation: Number of the table change',
    COMMENT COLUMN `name` 'technical for operation: Its file',
    COMMENT COLUMN `applied_at` 'technical for operation: When it was applied';
