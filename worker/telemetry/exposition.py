"""Where Prometheus reads the metrics of a process.

A worker is a main process with pool processes, so each keeps its numbers in memory-mapped files of a private folder,
and the main process adds them up. What a process leaves that is gone is added to one kept file first, so that no number
ever falls and the folder stays small.

Source: prometheus_client, "Multiprocess Mode".
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, disable_created_metrics, start_http_server, values
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from compliance.audit.incident import Kind
from compliance.errors import ConfigurationError
from compliance.health import CHECKS
from worker.telemetry import metrics
from worker.telemetry.attempt import Ending
from worker.telemetry.folder import ProcessFolder

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
FOLDER = "compliance-worker-metrics-"
KEPT = 0  # no process has this id
STREAMS = ("app", "audit", "compliance", "oplog", "outbox")
Stop = Callable[[], None]


class PoolCollector(Collector):
    """Adds up what the processes of a pool counted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def collect(self) -> Iterable[Metric]:
        """Return the sums."""
        with self._lock:  # a scrape must not read while another moves numbers
            keep_of_dead(self._folder)
            files = [str(path) for path in self._folder.glob("*.db") if path.stat().st_size]  # empty while it begins
            return list(MultiProcessCollector.merge(files, accumulate=True))


def keep_of_dead(folder: Path) -> None:
    """Add what processes counted that are gone to the kept files, and remove theirs."""
    for path in folder.glob("*.db"):
        name, _, pid = path.stem.rpartition("_")
        if int(pid) == KEPT or _is_alive(int(pid)):
            continue
        found = {key: value for key, value, _, _ in MmapedDict.read_all_values_from_file(path)}
        kept = MmapedDict(str(folder / f"{name}_{KEPT}.db"))
        for key, value in found.items():
            kept.write_value(key, kept.read_value(key)[0] + value, 0.0)
        kept.close()
        path.unlink()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # the number is another user's process by now, so ours is gone
        return False
    return True


def serve_worker(host: str, port: int, kinds: Iterable[str]) -> Stop:
    """Serve the metrics of a worker and its pool; return what ends it.

    MUST be called in the main process, before the pool is forked.

    Args:
        host: The address to listen at.
        port: The port.
        kinds: The kinds of work: their counters begin at 0, for a counter that begins at 1 hides its first event.

    Raises:
        ConfigurationError: When the port cannot be had.
    """
    folder = ProcessFolder.make(FOLDER)
    os.environ[VARIABLE] = str(folder.path)  # noqa: TID251 - how prometheus_client is told
    values.ValueClass = values.MultiProcessValue()
    _begin_at_zero(folder.path, tuple(kinds))
    metrics.switch_on(metrics.WORKER_METRICS, CollectorRegistry())
    registry = CollectorRegistry()
    registry.register(PoolCollector(folder.path))
    owner = os.getpid()

    def put_back() -> None:
        os.environ.pop(VARIABLE, None)  # noqa: TID251 - as above
        values.ValueClass = values.MutexValue
        folder.remove()

    try:
        end = _serve(host, port, registry)
    except ConfigurationError:
        metrics.switch_off()
        put_back()
        raise

    def stop() -> None:
        if os.getpid() == owner:
            end()
            put_back()

    return stop


def _begin_at_zero(folder: Path, kinds: tuple[str, ...]) -> None:
    kept = MmapedDict(str(folder / f"counter_{KEPT}.db"))
    for metric, labels in _known(metrics.WORKER_METRICS, kinds):
        family = metric.name.removesuffix("_total")
        kept.read_value(mmap_key(family, metric.name, list(metric.labels), list(labels), metric.meaning))
    kept.close()


def _known(
    counted: Iterable[metrics.Count | metrics.Distribution], kinds: tuple[str, ...]
) -> Iterator[tuple[metrics.Count, tuple[str, ...]]]:
    known = {"kind": kinds, "outcome": tuple(ending.value for ending in Ending), "stream": STREAMS}
    own = {
        metrics.INCIDENTS: {"kind": tuple(kind.value for kind in Kind)},
        metrics.ALERTS: {"kind": ("audit.verify", *(f"health.check/{check}" for check in CHECKS))},
    }
    for metric in counted:
        if isinstance(metric, metrics.Count):
            values = own.get(metric, known)
            for labels in product(*(values.get(label, ()) for label in metric.labels)):  # anchors: nobody knows them
                yield metric, labels


def serve_watcher(host: str, port: int, readings: Iterable[Collector], kinds: Iterable[str]) -> Stop:
    """Serve the metrics of a watcher; return what ends it.

    Raises:
        ConfigurationError: When the port cannot be had.
    """
    disable_created_metrics()
    registry = CollectorRegistry()
    metrics.switch_on(metrics.WATCHER_COUNTS, registry)
    for metric, labels in _known(metrics.WATCHER_COUNTS, tuple(kinds)):
        metric.inc(*labels, by=0)
    for reading in readings:
        registry.register(reading)
    return _serve(host, port, registry)


def _serve(host: str, port: int, registry: CollectorRegistry) -> Stop:
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigurationError(
            f"COMPLIANCE_METRICS_HOST, COMPLIANCE_METRICS_PORT: cannot listen at {host} port {port} "
            f"({type(error).__name__}); each process needs a port of its own"
        ) from None

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()
        metrics.switch_off()

    return stop
