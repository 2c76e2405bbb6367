"""The embedded run log: no network, no disk, gone with the process."""

from run_log.stores.memory._service import InMemoryRunLogService, create_service

__all__ = ["InMemoryRunLogService", "create_service"]
