"""One installation on this machine: `lifecycle up` and the commands that watch, restart and stop it."""
