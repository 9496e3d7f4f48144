-- A saga may wait for an outside system that is away, and is woken when that is well again.
ALTER TABLE sagas ADD COLUMN waits_for text;
CREATE INDEX sagas_waiting ON sagas (waits_for) WHERE waits_for IS NOT NULL;

-- How many sagas of an organisation are being driven.
CREATE INDEX sagas_leased ON sagas (org) WHERE lease_until IS NOT NULL;
