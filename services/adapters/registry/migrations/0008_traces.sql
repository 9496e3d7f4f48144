-- The trace (W3C `traceparent`) that the newest desired version belongs to; absent: none. What leaves by the outbox repeats it.
ALTER TABLE sagas ADD COLUMN trace text;
-- The version of the trace: an intake of an earlier release stores a newer version and leaves the trace of another.
ALTER TABLE sagas ADD COLUMN trace_version bigint;
ALTER TABLE outbox ADD COLUMN trace text;

-- By step, the span of the newest call that is not done: the next try of the step is linked to it, in any process.
ALTER TABLE sagas ADD COLUMN open_calls json;
