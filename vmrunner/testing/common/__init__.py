"""What every local cloud is made of: a clock that obeys, and what goes wrong on demand."""
