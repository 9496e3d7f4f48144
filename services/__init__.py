"""The running parts. Folder order is the event's journey: core, adapters, ingress, ledger, provisioner, reconciler."""
