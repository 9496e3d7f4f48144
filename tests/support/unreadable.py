"""The registry's reaction to an unreadable row in tests: no test has such a row unless it says so."""


def unexpected(key: str, why: str) -> None:
    """Fails the test."""
    raise AssertionError(f"the row of {key} cannot be read: {why}")
