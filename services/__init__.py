"""Services of the system; folders in the order of an event's journey: core, adapters, ingress, ledger, provisioner."""
