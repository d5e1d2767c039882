"""The nouns, in three files; everybody imports them from `vmrunner.model`."""
