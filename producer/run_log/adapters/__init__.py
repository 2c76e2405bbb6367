"""What records the runs of other frameworks. Each module needs the framework that it is for, and no other."""

__all__: list[str] = []
