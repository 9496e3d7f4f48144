"""The PostgreSQL client: pooled connections, single sessions, URLs with passwords, and time limits for the server."""
