"""What is serialised: topics, the sender's wire format, our records, and the codec between records and Kafka.

Nouns only. Nothing here reads a clock, opens a socket or decides anything.
"""
