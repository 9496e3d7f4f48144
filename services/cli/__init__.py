"""The program `lifecycle`.

Reads the process environment once, and starts services, engines and operators' commands. No command changes a tenant
directly: every change enters as a webhook or an observation, like all events.
"""
