pytest_plugins = ["run_log.testing.pytest_plugin"]
