"""All tests run on the CPU, as eight devices, with one persistent compilation cache: set before JAX is imported."""

import asyncio
import gc
import os
import signal
import tempfile

import xla_flags

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = xla_flags.TESTS
CACHE = os.path.join(tempfile.gettempdir(), f"trace_jax_tests_{os.getuid()}")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", CACHE)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small products: a second thread only waits, at full speed
# Of the programs that tests start. SIGINT interrupts them, even if the tests themselves run in the background.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import jax  # noqa: E402
import pytest  # noqa: E402
import uvicorn.server  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

# Machines are shared: an example that once takes long is no bug.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


_MOST_MAPS = 30_000  # of the 65,530 pieces of memory that Linux lets a process map: a module adds up to 20,000


_FIRST = ("launch", "training")  # folders of long tests


def pytest_collection_modifyitems(items):
    """Long tests come first, so that no process still has one when the others have ended."""
    items.sort(key=lambda item: item.path.parent.name not in _FIRST)


@pytest.fixture(scope="session", autouse=True)
def programs_are_told():
    """Programs that tests start do without torch, and compute for longer than they compile.

    JAX has read its flags by then, and the processes that share the test files have been started: they need torch.
    """
    jax.devices()
    os.environ["XLA_FLAGS"] = xla_flags.PROGRAMS
    os.environ["PYTHONPATH"] = os.path.join(os.path.dirname(__file__), "without_torch")


def pytest_collection_finish():
    """The collector of garbage need not look again and again at what was imported."""
    gc.collect()
    gc.freeze()


class _Hurried:
    """asyncio, for a module that sleeps between two looks: it looks twenty times as often."""

    def __getattr__(self, name):
        return getattr(asyncio, name)

    @staticmethod
    async def sleep(seconds):
        await asyncio.sleep(seconds / 20)


@pytest.fixture(scope="session", autouse=True)
def servers_end_when_they_are_told():
    """uvicorn looks ten times a second whether it should end: hundreds of tests would wait for that."""
    uvicorn.server.asyncio = _Hurried()


@pytest.fixture(scope="module", autouse=True)
def programs_are_released():
    """Modules share compiled programs until these take so many pieces of mapped memory that the next ones may fail."""
    yield
    if _maps() > _MOST_MAPS:
        jax.clear_caches()


def _maps() -> int:
    """Pieces of memory that this process has mapped; where that is not told, more than any limit."""
    try:
        with open("/proc/self/maps", "rb") as maps:
            return sum(1 for _ in maps)
    except OSError:
        return _MOST_MAPS + 1
