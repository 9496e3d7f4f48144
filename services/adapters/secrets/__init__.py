"""Secrets: the keyring file, its newest good version, and the sealing of values before they are stored."""
