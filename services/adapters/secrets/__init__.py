"""Secrets: the keyring file, the newest valid keyring, and the encryption of values before storage."""
