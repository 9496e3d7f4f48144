"""The number of examples of a property test: all in `make faults`, two fifths in `make test`, a tenth in `make quick`.

Each run draws other examples, so the runs of many days try more than a long run does.
"""

import os

_SHARE = 0.1 if os.environ.get("LIFECYCLE_QUICK") else 1.0 if os.environ.get("LIFECYCLE_WHOLE") else 0.4


def examples(count: int) -> int:
    """Returns the number of examples to try; at least 10.

    Args:
        count: For the whole suite.
    """
    return max(10, round(count * _SHARE))
