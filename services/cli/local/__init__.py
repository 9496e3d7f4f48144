"""The commands of one installation on this machine: `lifecycle up`, `status`, `logs`, `restart` and `down`."""
