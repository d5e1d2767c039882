"""The composition root: from settings to parts; and who runs an engine, where."""
