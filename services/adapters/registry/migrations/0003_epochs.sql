-- A registry made anew must not give out epochs that outside systems have seen exceeded: they begin at the time, in
-- seconds, which no former row has reached by being claimed.
ALTER TABLE sagas ALTER COLUMN epoch SET DEFAULT extract(epoch FROM clock_timestamp())::bigint;
