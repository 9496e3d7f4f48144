"""A line of TENANTS_FILE: what an operator tells of an integration, where no event and no API tells it."""

from pydantic import BaseModel, ConfigDict, Field

from schemas.values import Json, TenantId


class ToldTenant(BaseModel):
    """The tenantId of an integration, and the configuration that its tenant is made with."""

    # The configuration may hold secrets, so no error quotes the input.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    tenant_id: TenantId
    configuration: Json = Field(default_factory=dict, repr=False)
