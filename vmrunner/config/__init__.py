"""`vmrunner.toml`, the environment and job files, as frozen values."""
