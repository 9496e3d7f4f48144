"""Names the right that is missing when aiokafka raises that the cluster refuses one."""

from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError

from schemas.rights import Operation, Resource, Right
from services.adapters.kafka.producer import not_allowed

DENIALS = (TopicAuthorizationFailedError, GroupAuthorizationFailedError)
"""What a table worker's consumer raises for want of a right; both carry the name of what they were refused."""


def refusal(error: BaseException | None) -> str:
    """The sentence with right and remedy; empty text where the error is none of `DENIALS`."""
    if not isinstance(error, DENIALS):
        return ""
    resource = Resource.GROUP if isinstance(error, GroupAuthorizationFailedError) else Resource.TOPIC
    told = error.args[0] if error.args else ""
    names = [told] if isinstance(told, str) else sorted(map(str, told))
    return not_allowed(", ".join(str(Right(resource, name, Operation.READ)) for name in names))
