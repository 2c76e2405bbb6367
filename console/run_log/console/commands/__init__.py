"""How commands are called: one module for each command or group, with its options and its help."""
