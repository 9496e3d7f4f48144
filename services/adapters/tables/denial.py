"""Translates aiokafka's authorization errors into a sentence that names the missing right."""

from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError

from schemas.rights import Operation, Resource, Right
from services.adapters.kafka.producer import missing_rights_text

DENIALS = (TopicAuthorizationFailedError, GroupAuthorizationFailedError)
"""Errors of a table worker's consumer for a missing right. The first argument of each is the refused name, or a set of
refused names."""


def refusal(error: BaseException | None) -> str:
    """Returns the sentence with the missing right and the remedy; an empty text for an error outside `DENIALS`."""
    if not isinstance(error, DENIALS):
        return ""
    resource = Resource.GROUP if isinstance(error, GroupAuthorizationFailedError) else Resource.TOPIC
    refused = error.args[0] if error.args else ""
    names = [refused] if isinstance(refused, str) else sorted(map(str, refused))
    return missing_rights_text(", ".join(str(Right(resource, name, Operation.READ)) for name in names))
