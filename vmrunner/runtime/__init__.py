"""The composition root: from settings to parts; and where an engine runs."""
