"""A line of the file of `lifecycle adopt`: a tenant that a vendor has already, with what exists of it outside."""

from pydantic import BaseModel, ConfigDict, Field

from schemas.values import Json, Key, TenantId


class AdoptionLine(BaseModel):
    """A tenant to adopt."""

    # Configuration and outputs may hold secrets, so no error quotes the input.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)

    key: Key
    tenantId: TenantId  # noqa: N815 - the sender's spelling, as in the webhook
    configuration: Json = Field(default_factory=dict, repr=False)
    """The configuration with which the resources were made; the ledger is told of it."""
    enabled: bool = True
    steps: dict[str, Json] = Field(default_factory=dict, repr=False)
    """Name of a step of the plan to the known outputs of the step, as ids. Every step is looked up, named here or
    not."""
