"""What helps to test programs that use vmrunner, and vmrunner itself. Nothing of vmrunner imports
it, and what it needs beside vmrunner is in the extras that it names."""
