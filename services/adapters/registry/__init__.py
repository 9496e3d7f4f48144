"""The provisioner's registry: a PostgreSQL schema with a row per key, the SQL statements, and the returned values."""
