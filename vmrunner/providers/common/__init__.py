"""Parts that drivers share."""
