"""What a registry of the tests does with a row that it cannot read: no test has such a row unless it says so."""


def unexpected(key: str, why: str) -> None:
    """Fails the test."""
    raise AssertionError(f"the row of {key} cannot be read: {why}")
