"""A foreign HTTP API described in the plan: the description, its check, requests, listings and meanings of answers."""
