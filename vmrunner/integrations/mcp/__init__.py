"""Model Context Protocol: sandboxes and builds as tools of an agent; the only import of its SDK."""
