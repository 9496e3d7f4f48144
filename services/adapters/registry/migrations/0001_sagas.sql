-- Applied once, in the registry's own schema (the search path), under an advisory lock. Never edited: the next change is the next file.

-- A tenantId belongs to one organisation for as long as a life of one of its keys goes by it.
CREATE TABLE bindings (
    tenant_id text PRIMARY KEY,
    org       text NOT NULL,
    UNIQUE (tenant_id, org)
);

-- `json`, not `jsonb`: a configuration may hold U+0000, which jsonb refuses; and nothing here is searched inside.
CREATE TABLE sagas (
    key             text PRIMARY KEY,
    org             text NOT NULL,
    desired         json NOT NULL,
    desired_version bigint NOT NULL,
    journal         json NOT NULL DEFAULT '{}',
    phase           text NOT NULL DEFAULT 'empty',
    generation      integer NOT NULL DEFAULT 0,
    tenant_id       text,
    due_at          timestamptz,
    lease_until     timestamptz,
    epoch           bigint NOT NULL DEFAULT 0,
    worker          text,
    changed_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Another organisation's tenantId cannot be written here, whatever a worker believes.
    FOREIGN KEY (tenant_id, org) REFERENCES bindings (tenant_id, org)
) WITH (fillfactor = 70);

CREATE INDEX sagas_due ON sagas (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX sagas_tenant ON sagas (tenant_id) WHERE tenant_id IS NOT NULL;

-- Outcomes that Kafka has not acknowledged yet; ids grow per key as seq does.
CREATE TABLE outbox (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key   text NOT NULL,
    seq   bigint NOT NULL,
    value bytea NOT NULL,
    UNIQUE (key, seq)
);

-- Every plan a life may still go by.
CREATE TABLE plans (
    digest  text PRIMARY KEY,
    text    text NOT NULL,
    kept_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
