"""The process itself: settings, logs, metrics, health, clock, listening sockets, open files and folder locks."""
