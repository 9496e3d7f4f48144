-- The trace (W3C `traceparent`) that the newest desired version belongs to; absent: none. What leaves by the outbox repeats it.
ALTER TABLE sagas ADD COLUMN trace text;
ALTER TABLE outbox ADD COLUMN trace text;

-- By step, the span of the newest call that is not done: the next try of the step is linked to it, in any process.
ALTER TABLE sagas ADD COLUMN open_calls json;
