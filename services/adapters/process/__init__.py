"""Services of the process: settings, logs, metrics, health, clock, listening sockets, open files and folder locks."""
