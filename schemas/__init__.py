"""Serialised data: the topic table, the sender's wire format, our records, and the codec between records and Kafka.

Data only: no module of this package reads a clock, opens a socket or makes a decision of the system.
"""
