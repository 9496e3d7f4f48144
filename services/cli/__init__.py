"""The program `lifecycle`.

Reads the process environment, once; starts services, engines and everything an operator asks for. It decides nothing
about a tenant: whatever changes one is sent as a webhook or an observation, like everybody else's.
"""
