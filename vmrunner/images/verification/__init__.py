"""Verification of an image."""
