-- The step that a saga stands at, and since when: tenants that stand for long are counted, and shown as unwell.
ALTER TABLE sagas ADD COLUMN stands_at text;
ALTER TABLE sagas ADD COLUMN stands_since timestamptz;
CREATE INDEX sagas_standing ON sagas (stands_since) WHERE stands_since IS NOT NULL;

-- Nothing is parked any more: what an earlier release parked goes on, and what was rolled back is provisioned again.
UPDATE sagas SET due_at = clock_timestamp(), phase = CASE phase
        WHEN 'compensation_failed' THEN 'compensating' WHEN 'removal_failed' THEN 'removing' ELSE phase END
    WHERE phase IN ('compensation_failed', 'removal_failed');
UPDATE sagas SET due_at = clock_timestamp() + make_interval(secs => 3600 + 3600 * random())
    WHERE phase = 'rolled_back' AND due_at IS NULL;
