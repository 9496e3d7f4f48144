-- The step that a saga stands at, and since when: tenants that stand for long are counted, and shown as unwell.
ALTER TABLE sagas ADD COLUMN stands_at text;
ALTER TABLE sagas ADD COLUMN stands_since timestamptz;
CREATE INDEX sagas_standing ON sagas (stands_since) WHERE stands_since IS NOT NULL;
