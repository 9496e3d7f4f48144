"""Kafka: one producer, consumer groups, readers without a group, topics, and the errors they raise."""
