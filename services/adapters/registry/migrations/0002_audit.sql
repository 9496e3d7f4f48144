-- What the provisioner says is more than outcomes: the audit lines of its steps leave by the same way.

ALTER TABLE outbox ADD COLUMN topic text NOT NULL DEFAULT 'lifecycle.outcomes';
ALTER TABLE outbox ALTER COLUMN topic DROP DEFAULT;
ALTER TABLE outbox DROP CONSTRAINT outbox_key_seq_key;
ALTER TABLE outbox ADD UNIQUE (key, topic, seq);
