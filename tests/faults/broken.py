"""What is raised where a promise does not hold."""

from __future__ import annotations


class Broken(AssertionError):
    """A promise does not hold; the text begins with its number."""
