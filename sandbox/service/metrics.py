"""What the service tells Prometheus."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from sandbox.judge import Statistics
from sandbox.submission import Execution
from sandbox.verdicts import Judgement, Verdict

_WINDOW = 2048
_LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counters of one service, in a registry of its own. Thread-safe."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = lambda name, text, labels=(): Counter(  # noqa: E731
            f"rlvr_judge_{name}", text, labels, registry=self.registry
        )
        self._verdicts = counter("verdicts", "Programs judged, by verdict.", ("verdict",))
        self._tests = counter("tests", "Tests run, by verdict.", ("verdict",))
        self._executions = counter("executions", "Runs of POST /run_code, by status.", ("status",))
        self._timeouts = counter("timeouts", "Runs stopped by time: cpu (TLE) or wall (ILE).", ("limit",))
        self.refused = counter("refused", "Requests refused because the queue was full.")
        self.unauthorised = counter("unauthorised", "Requests without the right token.")
        self._latency = Histogram(
            "rlvr_judge_latency_seconds",
            "From acceptance of a submission to its judgement.",
            registry=self.registry,
            buckets=_LATENCIES,
        )
        self._recent: deque[tuple[float, float, bool]] = deque(maxlen=_WINDOW)  # (when, latency, IE)
        self._lock = threading.Lock()
        for verdict in Verdict:
            self._verdicts.labels(verdict.value)
        for limit in ("cpu", "wall"):
            self._timeouts.labels(limit)
        self._gauge("latency_p50_seconds", "Median latency of the last submissions.", lambda: self.quantile(0.5))
        self._gauge("latency_p99_seconds", "99th percentile of it.", lambda: self.quantile(0.99))
        self._gauge("infrastructure_error_rate", "Share of IE among the last submissions.", self.error_rate)

    def watch(self, statistics: Callable[[], Statistics], open_submissions: Callable[[], int], level: str) -> None:
        """Takes the gauges from the judge and the queue whenever they are asked for."""
        self._gauge("queue_depth", "Submissions accepted and not yet answered.", open_submissions)
        self._gauge("jobs_waiting", "Programs waiting for a worker.", lambda: statistics().waiting)
        self._gauge("workers", "Workers the judge may use.", lambda: statistics().workers)
        self._gauge("workers_in_groups", "Workers held by a control group.", lambda: statistics().in_groups)
        self._gauge("utilisation", "Share of workers that run a program.", lambda: statistics().utilisation)
        self._gauge("workers_replaced", "Workers that died or fell silent.", lambda: statistics().replaced)
        self._gauge("run_alone", "Runs repeated alone for want of CPU.", lambda: statistics().run_alone)
        self._gauge("cache_hits", "Verdicts taken from the cache.", lambda: statistics().cache_hits)
        self._gauge("cache_misses", "Verdicts not in the cache.", lambda: statistics().cache_misses)
        protection = Gauge("rlvr_judge_protection", "The protection level.", ("level",), registry=self.registry)
        protection.labels(level).set(1)

    def judged(self, judgement: Judgement, seconds: float) -> None:
        self._verdicts.labels(judgement.verdict.value).inc()
        for case in judgement.cases:
            if case.verdict is not Verdict.SKIPPED:
                self._tests.labels(case.verdict.value).inc()
                self._count_timeout(case.verdict)
        self._observe(seconds, judgement.verdict is Verdict.IE)

    def executed(self, execution: Execution, seconds: float, status: str) -> None:
        self._executions.labels(status).inc()
        self._count_timeout(execution.verdict)
        self._observe(seconds, execution.verdict is Verdict.IE)

    def quantile(self, share: float) -> float:
        """Latency that `share` of the last submissions did not exceed; 0 before the first."""
        with self._lock:
            seconds = sorted(latency for _, latency, _ in self._recent)
        return seconds[min(len(seconds) - 1, int(share * len(seconds)))] if seconds else 0.0

    def error_rate(self) -> float:
        with self._lock:
            return sum(failed for _, _, failed in self._recent) / len(self._recent) if self._recent else 0.0

    def seconds_for(self, submissions: int) -> int:
        """Whole seconds, 1 to 30, that so many submissions take at the pace of late."""
        with self._lock:
            span = time.monotonic() - self._recent[0][0] if self._recent else 0.0
            pace = len(self._recent) / span if span > 0 else 0.0
        return max(1, min(30, round(submissions / pace))) if pace else 1

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def _observe(self, seconds: float, failed: bool) -> None:
        self._latency.observe(seconds)
        with self._lock:
            self._recent.append((time.monotonic(), seconds, failed))

    def _count_timeout(self, verdict: Verdict) -> None:
        if verdict in (Verdict.TLE, Verdict.ILE):
            self._timeouts.labels("cpu" if verdict is Verdict.TLE else "wall").inc()

    def _gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        Gauge(f"rlvr_judge_{name}", text, registry=self.registry).set_function(value)
