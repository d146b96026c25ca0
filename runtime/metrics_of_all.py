"""What do all processes of one Headwater count, in one answer?

Each process beside the one port shows its numbers on a port of its own and writes its address into
a file. Their samples are put together with ours under a label `process`; a process that does not
answer is one whose `headwater_process_answers` is 0.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from runtime.metrics import gauge

ANSWER_WITHIN_S = 2.0


class MetricsOfAll:
    """Asks the processes whose addresses lie in `addresses`; `process` is our own name."""

    def __init__(self, process: str, addresses: Mapping[str, Path] | None, key: str) -> None:
        self._process = process
        self._addresses = dict(addresses or {})
        self._headers = {"Authorization": f"Bearer {key}"}

    async def text(self) -> bytes:
        """Prometheus's text format: ours alone when there are no others."""
        if not self._addresses:
            return generate_latest()
        async with _session() as session:
            texts = await asyncio.gather(
                *(self._ask(session, file) for file in self._addresses.values())
            )
        answered = dict(zip(self._addresses, texts, strict=True))
        for process, text in answered.items():
            gauge("headwater_process_answers").labels(process).set(text is not None)
        families: dict[str, Iterable[Metric]] = {self._process: REGISTRY.collect()}
        families |= {
            process: text_string_to_metric_families(text)
            for process, text in answered.items()
            if text is not None
        }
        registry = CollectorRegistry()
        registry.register(_Merged(families))
        return generate_latest(registry)

    async def _ask(self, session: aiohttp.ClientSession, file: Path) -> str | None:
        try:
            url = file.read_text("utf-8").strip()
            async with session.get(url, headers=self._headers) as answer:
                return await answer.text() if answer.status == 200 else None
        except (OSError, ValueError, TimeoutError, aiohttp.ClientError):
            return None


@asynccontextmanager
async def _session() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield session


class _Merged(Collector):
    """Families of several processes, each once, their samples told apart by `process`."""

    def __init__(self, families: Mapping[str, Iterable[Metric]]) -> None:
        self._families = families

    def describe(self) -> list[Metric]:
        """Nothing beforehand: else registering would collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        merged: dict[str, Metric] = {}
        for process, families in self._families.items():
            for family in families:
                known = merged.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                known.samples += [
                    sample
                    if "process" in sample.labels
                    else sample._replace(labels={**sample.labels, "process": process})
                    for sample in family.samples
                ]
        yield from merged.values()
