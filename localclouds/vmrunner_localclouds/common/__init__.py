"""Parts of every local cloud: a clock that obeys, and faults on demand."""
