"""The use cases, each once: submit, follow, cancel, reap, audit, doctor."""
