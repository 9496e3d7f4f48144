-- Why a saga waits, where its journal does not say so: a plan that cannot be carried out, an error nobody foresaw, grace.
ALTER TABLE sagas ADD COLUMN why text;

-- A recovery of a registry that is older than what was said from it was begun and has not ended.
CREATE TABLE recovery (begun_at timestamptz NOT NULL DEFAULT clock_timestamp());

-- The greatest number there is has none after it: a row edited to hold it would end every worker that claims.
ALTER TABLE sagas ADD CONSTRAINT sagas_epoch_grows CHECK (epoch BETWEEN 0 AND 4611686018427387904);
