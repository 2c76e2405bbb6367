"""What commands do, apart from how they are called: one module for each command or group."""
