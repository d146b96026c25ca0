-- Whose campaign a late touch may change (ADR 0021). Of rows of before: whatever named no campaign.

ALTER TABLE facts
    ADD COLUMN IF NOT EXISTS by_touch UInt8 DEFAULT campaign_id = '(none)' AND idx = 0 COMMENT 'behaviour for analytics: 1 if the last touch of the person decides the campaign, or there is none',
    COMMENT COLUMN idx 'technical for operation: 0 is the event itself, 65535 the event in another campaign that it was given to at this offset, others are visits that changed';
