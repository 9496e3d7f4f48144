"""The registry of the provisioner: one PostgreSQL schema with a row per key, its SQL, and the values it returns."""
