"""Hands: settings, Kafka, durable tables, HTTP, clock, metrics, logs, health. No decisions."""
