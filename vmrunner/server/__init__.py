"""The HTTP API, over `services/`; it starts with `vmrunner serve --listen`."""
