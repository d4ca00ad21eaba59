"""Where children are evaluated: here, in other processes, on a cluster; and the store that keeps what is known."""

from nases_env.execution.caching import CachingExecutor
from nases_env.execution.executor import Executor, SerialExecutor, Task
from nases_env.execution.factory import ExecutionSettings, make_executor, resolve_execution
from nases_env.execution.store import Store

__all__ = [
    "CachingExecutor",
    "ExecutionSettings",
    "Executor",
    "SerialExecutor",
    "Store",
    "Task",
    "make_executor",
    "resolve_execution",
]
