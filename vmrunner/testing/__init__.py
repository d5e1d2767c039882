"""Helps for tests of programs that use vmrunner, and of vmrunner itself. Nothing of vmrunner
imports it, and what it needs beside vmrunner is in the extras that it names."""
