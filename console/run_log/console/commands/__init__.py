"""One module a group of commands: what it is called with, and what it shows."""
