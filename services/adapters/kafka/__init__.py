"""Clients of Kafka: one producer, consumer groups, readers without a group, topic administration, and their errors.

All clients are librdkafka's (confluent_kafka); only the durable tables read with aiokafka.
"""
