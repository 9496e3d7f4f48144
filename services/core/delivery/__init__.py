"""Decisions of the ingress: signature, time, binding, the breaker before Kafka, and the rules of topics."""
