"""PostgreSQL as a client meets it: pooled connections, single sessions, URLs, and silent servers."""
