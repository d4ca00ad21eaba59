"""Executors, which evaluate children in this process, in worker processes or on a cluster; and the store of results."""

from nases_env.execution.caching import CachingExecutor
from nases_env.execution.executor import Executor, Task
from nases_env.execution.factory import ExecutionSettings, count_workers, make_executor, resolve_execution
from nases_env.execution.serial import SerialExecutor
from nases_env.execution.store import Store

__all__ = [
    "CachingExecutor",
    "ExecutionSettings",
    "Executor",
    "SerialExecutor",
    "Store",
    "Task",
    "count_workers",
    "make_executor",
    "resolve_execution",
]
