-- Why a saga stands where it stands, as a word of a closed set, and since when: counted for the metrics of the whole registry.
ALTER TABLE sagas ADD COLUMN waits_because text;
ALTER TABLE sagas ADD COLUMN waits_since timestamptz;
-- The lease that wrote the word: a worker of an earlier release raises the epoch and leaves the word of another turn.
ALTER TABLE sagas ADD COLUMN waits_epoch bigint;

-- How old the outbox is. Rows from before this column count from now on.
ALTER TABLE outbox ADD COLUMN written_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE outbox ALTER COLUMN written_at SET DEFAULT clock_timestamp();
