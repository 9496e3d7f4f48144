-- The newest removal of each key: the brake asks here before the first destructive call of a teardown, and counts. A
-- row outlives its saga for as long as it counts.
CREATE TABLE removals (
    key               text PRIMARY KEY,
    generation        integer NOT NULL,
    -- When the teardown began, by its journal, and for which version: a life that was revived may be torn down again.
    -- Either is enough: a worker that died before its commit leaves another begin, a second uninstall another version.
    began_us          bigint NOT NULL,
    version           bigint NOT NULL,
    asked_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Absent: never held.
    held_since        timestamptz,
    admitted_at       timestamptz,
    -- Let go by an operator, and so not counted.
    approved          boolean NOT NULL DEFAULT false,
    refused_by        text,
    refused_at        timestamptz,
    refused_reason    text,
    -- What a question to Genesys left open ('installed' or 'unread'), and since when.
    unconfirmed       text,
    unconfirmed_since timestamptz
);

-- Each lets go one removal of its key, once.
CREATE TABLE removal_approvals (
    key         text PRIMARY KEY,
    digest      text NOT NULL,
    approved_by text NOT NULL,
    reason      text NOT NULL,
    approved_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at  timestamptz NOT NULL
);
