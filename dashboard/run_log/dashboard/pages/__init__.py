"""The pages that people look at: complete without a script, and alive with one."""
