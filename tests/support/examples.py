"""The number of examples of a property test: all in `make test`, a tenth in the quick loop of a contributor."""

import os

_QUICK = bool(os.environ.get("LIFECYCLE_QUICK"))
_SHARE = 10


def examples(count: int) -> int:
    """Returns the number of examples to try; at least 10.

    Args:
        count: For the whole suite.
    """
    return max(10, count // _SHARE) if _QUICK else count
