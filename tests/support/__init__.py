"""Worlds, processes, samples and servers shared by several tests."""
