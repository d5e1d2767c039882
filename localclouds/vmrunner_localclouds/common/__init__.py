"""Parts of every local cloud: a clock that tests may set, and faults on demand."""
