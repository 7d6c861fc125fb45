"""`python -m benchmarks.stream`: the stream of lines over the command without HTTP, its memory, and what it costs people who wait.

- ingest: chunks of lines go through `POST /classify` as a stream of lines, and through `supportbot classify`, one after the other;
  texts a second of both (the command's without its start-up), their ratio by chunk, and the server's resident memory meanwhile.
  The answers of both are compared, so that none is lost and none has another's place.
- others: single texts at random moments, at a third of the capacity, with a stream that takes all the rest and without, in turns.

Every text is a ticket of its own. Client and server share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from multiprocessing.synchronize import Event
from pathlib import Path
from time import perf_counter
from typing import Final

import numpy as np
import orjson
import uvloop

from benchmarks.console import say
from benchmarks.overload import CAPACITY_CLIENTS, NOTHING_KNOWN, answered, closed_loop, requests
from loadtest import light
from loadtest.arrivals import Pace, poisson
from loadtest.corpus import tickets
from loadtest.processes import running_server
from loadtest.run import QUIET
from loadtest.samples import Sample
from loadtest.settings import check_defaults

SEED: Final = 11
SAMPLE_SECONDS: Final = 5.0
# As much as fits into two sockets' buffers would be far too much to end in good time.
BLOCK_LINES, AHEAD_BLOCKS = 200, 10
HEAD: Final = (
    b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
)


async def streamed(port: int, lines: Iterator[bytes]) -> list[str]:
    """Send lines as fast as they are answered, a few thousand ahead, and read their answers meanwhile; the labels."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    places = asyncio.Semaphore(AHEAD_BLOCKS)

    async def send() -> None:
        writer.write(HEAD)
        while block := b"".join(islice(lines, BLOCK_LINES)):
            await places.acquire()
            writer.write(b"%x\r\n%b\r\n" % (len(block), block))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    sending = asyncio.create_task(send())
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in head, head
    answers, count = bytearray(), 0
    while size := int(await reader.readuntil(b"\r\n"), 16):
        answers += (piece := (await reader.readexactly(size + 2))[:-2])
        count += piece.count(b"\n")
        while count >= BLOCK_LINES:
            count -= BLOCK_LINES
            places.release()
    await sending
    writer.close()
    return [orjson.loads(answer)["prediction"] for answer in answers.splitlines()]


def feed(port: int, stop: Event) -> None:
    """A stream that goes on until it is told to stop; runs in a process of its own."""
    texts = tickets(SEED + 1)

    def lines() -> Iterator[bytes]:
        while not stop.is_set():
            yield orjson.dumps({"text": next(texts)}) + b"\n"

    say(f"  the stream had {len(uvloop.run(streamed(port, lines())))} lines")


def resident(pid: int) -> float:
    """A process's resident memory in MB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


@contextmanager
def memory_sampled(pid: int, samples: list[float]) -> Iterator[None]:
    """Note the resident memory every `SAMPLE_SECONDS`."""
    is_over = threading.Event()

    def sample() -> None:
        samples.append(resident(pid))
        while not is_over.wait(SAMPLE_SECONDS):
            samples.append(resident(pid))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def commanded(folder: Path, texts: Sequence[str]) -> tuple[float, list[str]]:
    """(seconds, labels) of `supportbot classify` from a file to a file."""
    source, output = folder / "tickets.jsonl", folder / "labels.csv"
    source.write_bytes(b"".join(orjson.dumps({"text": text}) + b"\n" for text in texts))
    output.unlink(missing_ok=True)
    command = [sys.executable, "-m", "commands", "classify", "--file", str(source), "--output", str(output), "--format", "csv"]
    begin = perf_counter()
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own command
    seconds = perf_counter() - begin
    with output.open(newline="", encoding="utf-8") as rows:
        return seconds, [row["label"] for row in csv.DictReader(rows)]


def ingest(port: int, pid: int, lines: int, chunk: int) -> None:
    """Print the rates of the stream and of the command, and the server's memory while it had streams."""
    texts, ratios, memory = tickets(SEED), list[float](), list[float]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start_up = statistics.median(commanded(folder, ["hello"])[0] for _ in range(5))
        say(f"start-up of the command: {start_up:.2f} s")
        for number in range(lines // chunk):
            part = list(islice(texts, chunk))
            with memory_sampled(pid, memory):
                begin = perf_counter()
                labels = uvloop.run(streamed(port, (orjson.dumps({"id": n, "text": text}) + b"\n" for n, text in enumerate(part))))
                stream = chunk / (perf_counter() - begin)
            seconds, expected = commanded(folder, part)
            assert labels == expected, "the stream and the command differ"
            command = chunk / (seconds - start_up)
            ratios.append(stream / command)
            rates = f"stream {stream:.0f} texts/s, command {command:.0f}, ratio {ratios[-1]:.3f}"
            say(f"chunk {number + 1}: {rates}; {memory[-1]:.1f} MB resident")
    say(f"stream over command: median {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f}")
    start, middle, end = memory[0], memory[len(memory) // 2], memory[-1]
    say(
        f"resident memory: {start:.1f} MB at the start, {middle:.1f} in the middle, {end:.1f} at the end, {max(memory):.1f} at most"
    )


async def interactive(port: int, rate: float, seconds: float, seed: int) -> list[Sample]:
    """Single texts at random moments."""
    moments = list(poisson([Pace("third", seconds, rate)], seed))
    calls = list(zip(moments, requests(len(moments), seed), strict=True))
    samples: list[Sample] = []
    await light.open_loop(f"http://127.0.0.1:{port}", calls, NOTHING_KNOWN, samples.append, connections=16)
    return answered(samples)


def others(port: int, seconds: float, rounds: int) -> None:
    """Print the latencies of single texts with a stream and without."""
    begin = perf_counter()
    samples = uvloop.run(closed_loop(port, CAPACITY_CLIENTS, requests(3_000, SEED)))
    rate = len(samples) / (perf_counter() - begin) / 3
    say(f"a third of the capacity: {rate:.0f} texts/s")
    context = multiprocessing.get_context("spawn")
    found: dict[bool, list[float]] = {False: [], True: []}
    for number in range(rounds):
        for with_stream in (False, True):
            stop = context.Event()
            process = context.Process(target=feed, args=(port, stop))
            if with_stream:
                process.start()
            answers = uvloop.run(interactive(port, rate, seconds / rounds / 2, SEED + 2 + 2 * number + with_stream))
            stop.set()
            if with_stream:
                process.join()
            refused = sum(answer.status != 200 for answer in answers)
            latencies = [(answer.answered - answer.intended) * 1000 for answer in answers]
            found[with_stream] += latencies
            p50, p99 = np.percentile(latencies, [50, 99])
            say(f"stream {with_stream!s:5}: {len(latencies)} texts, {refused} refused, p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    (p50, p99), (q50, q99) = (np.percentile(found[key], [50, 99]) for key in (False, True))
    say(f"all: without p50 {p50:.1f} p99 {p99:.1f} ms, with p50 {q50:.1f} p99 {q99:.1f} ms; p99 over p99 {q99 / p99:.2f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=100_000, help="of the streams together, 0 to leave this part out")
    parser.add_argument("--chunk", type=int, default=10_000, help="lines of a stream")
    parser.add_argument("--seconds", type=float, default=120.0, help="of single texts, 0 to leave this part out")
    parser.add_argument("--rounds", type=int, default=3, help="turns of single texts without a stream and with one")
    options = parser.parse_args()
    check_defaults()
    with running_server([sys.executable, "-m", "commands", "serve"], QUIET) as server:
        port = int(server.url.rpartition(":")[2])
        if options.lines:
            ingest(port, server.pid, options.lines, options.chunk)
        if options.seconds:
            others(port, options.seconds, options.rounds)


if __name__ == "__main__":
    main()
