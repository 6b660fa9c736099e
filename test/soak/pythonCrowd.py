"""
Decides what an application sees of the Python client while its servers are killed: as libraryCrowd.ts, in Python. Told
by a line of JSON on standard input where everything stands at the end, it says on standard output what it has seen.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter

from market_data_platform import Missed, Tick, connect

POLICIES = ("evict-oldest", "conflate", "pause", "disconnect")
TOKENS_EACH = 10
BUFFER = 100_000
SETTLES_WITHIN_S = 60

Place = tuple[int, int]


class Application:
    def __init__(self, index: int, url: str, tokens: list[int]) -> None:
        self.policy = POLICIES[index % len(POLICIES)]
        self.name = f"python client {index} ({self.policy})"
        self.url = url
        self.batch = index % 2 == 0
        self.tokens = [tokens[(index * 7 + i * 3) % len(tokens)] for i in range(TOKENS_EACH)]
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()
        #: Where each stream stands by what was given, held against the library's own word.
        self.stood: dict[int, Place] = {}

    async def run(self) -> None:
        try:
            async with connect(self.url, policy=self.policy, batch=self.batch, buffer_size=BUFFER) as client:
                client.on("error", lambda error: self.problems.append(f"{self.name}: {error!r}"))
                client.on("connected", lambda _: self.counts.update(["python connections"]))
                channels = ("tick", "gap", "candle_1m")
                async with client.messages(self.tokens, channels=channels, backfill=100) as stream:
                    async for message in stream:
                        self.counts[f"python {message.type}"] += 1
                        if isinstance(message, Tick):
                            at = message.position
                            self.advance(message.instrument_token, message.epoch, at, at)
                        elif isinstance(message, Missed) and message.from_ is not None and message.to is not None:
                            self.counts["python missed ticks"] += message.to - message.from_ + 1
                            self.advance(message.instrument_token, message.epoch, message.from_, message.to)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self.problems.append(f"{self.name}: its stream ended: {error!r}")

    def advance(self, token: int, epoch: int, first: int, last: int) -> None:
        stood_epoch, stood_at = self.stood.get(token, (epoch, first - 1))
        is_next = first == 1 if epoch > stood_epoch else (epoch, first) == (stood_epoch, stood_at + 1)
        if not is_next:
            self.problems.append(f"{self.name}: {token} stood at {stood_epoch}/{stood_at}: {epoch}/{first}")
        self.stood[token] = (epoch, last)

    def lacking(self, places: dict[int, Place]) -> str | None:
        for token in self.tokens:
            meant = places.get(token)
            if meant is not None and self.stood.get(token) != meant:
                return f"{self.name}: {token} stands at {self.stood.get(token)} instead of {meant}"
        return None

    async def settle(self, places: dict[int, Place]) -> str | None:
        loop = asyncio.get_running_loop()
        until = loop.time() + SETTLES_WITHIN_S
        while self.lacking(places) is not None and loop.time() < until:
            await asyncio.sleep(0.1)
        return self.lacking(places)


async def main(urls: list[str], count: int, symbols: int, first: int) -> None:
    tokens = [first + i for i in range(symbols)]
    applications = [Application(i, urls[i % len(urls)], tokens) for i in range(count)]
    running = [asyncio.create_task(application.run()) for application in applications]
    # Nothing but the end is said here; where whoever would say it is gone, neither is anything to be told.
    line = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    if line == "":
        return
    places = {int(token): (epoch, position) for token, (epoch, position) in json.loads(line)["settle"].items()}
    found = await asyncio.gather(*(application.settle(places) for application in applications))
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    counts = sum((application.counts for application in applications), Counter[str]())
    sighted = {
        "violations": [problem for application in applications for problem in application.problems],
        "unsettled": [text for text in found if text is not None],
        "counts": counts,
        "bars": {},
    }
    print(json.dumps(sighted), flush=True)


_, given_urls, given_count, given_symbols, given_first = sys.argv
asyncio.run(main(given_urls.split(","), int(given_count), int(given_symbols), int(given_first)))
