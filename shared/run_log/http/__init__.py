"""HTTP that several rooms serve: a server that leaves signals to the process, and tokens that others sign."""
