"""Decisions of the ingress: signature, time rule, endpoint binding, Kafka's circuit breaker, and topic rules."""
