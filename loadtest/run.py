"""`python -m loadtest.run`: run a load test against a server that it starts and stops, write down what it found, and judge it.

Before the run, the idle server is asked for the answers to some texts, one at a time: that gives the right answers, and the time
of one pass. Its capacity is measured for a few seconds with 32 clients, unless CAPACITY says it. The generator is a process of its
own, as the server is, so that the CPU of each is known. OUT (dist/loadtest) gets `<scenario>.json` and the report.

From the environment (empty is unset):

- SCENARIO: one of the table in `scenarios`, `all`, or `closed`; default steady, or closed where USERS is set
- HOST: the URL of a running server, to load that one; SERVER: the command that starts one
- DURATION: seconds of the run, by which its steps are scaled; SOAK: the same for the soak among `all` (default 60)
- CAPACITY: texts a second that count as 100 %
- GENERATOR: locust or light, instead of the scenario's own
- SEED; USERS: clients of the closed loop; OUT: a folder
- GATES: a file of gates instead of ours; see `gates`
- ANSWERS: exact, or label for a server whose confidences depend on what else is in the batch

With `--ui`, Locust shows its web page instead, on 127.0.0.1:UI_PORT (8089), and runs the scenario whenever it is started there. The
exit status is 1 if a gate is broken or something else is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import uvloop

from loadtest import scenarios
from loadtest.answers import OK, Reference
from loadtest.arrivals import poisson
from loadtest.gates import Bounds, GatesError, check, read_gates
from loadtest.light import ANSWER_SECONDS, AskError, ask, closed_loop
from loadtest.measure import HERE, Run, summarize
from loadtest.monitor import Monitor, Reading
from loadtest.options import OptionError, Options, read_options
from loadtest.plan import PLAN_VARIABLE, Plan, write_plan
from loadtest.processes import START_SECONDS, ServerFailed, allow_many_files, running_server
from loadtest.results import Result, write_result
from loadtest.samples import Sample, read_samples
from loadtest.scenarios import CLOSED, SCENARIOS, Scenario
from loadtest.scrape import scrape
from loadtest.settings import server_settings
from loadtest.summary import describe

CALIBRATION_CLIENTS, CALIBRATION_SECONDS = 32, 4.0
QUIET = {"ACCESS_LOG": "false", "LOG_LEVEL": "warning"}


class RunError(Exception):
    """Raised when a run yields no result; the message says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server to load: its URL, and the number of its process if that is ours."""

    url: str
    process: int | None = None


@contextmanager
def _target(options: Options, scenario: Scenario) -> Iterator[Target]:
    """The running server that the options name, or one of our own. Raises `ServerFailed`."""
    if options.host is not None:
        yield Target(options.host)
    else:
        with tempfile.TemporaryDirectory(prefix="loadtest-") as folder:
            settings = QUIET | dict(scenario.settings)
            if "PREDICTION_LOG" in server_settings(os.environ):  # written, as it takes time, but not into that of real customers
                settings["PREDICTION_LOG"] = str(Path(folder) / "predictions.jsonl")
            if "DRIFT_STATE" in server_settings(os.environ):  # likewise: a load test's texts are not what customers send
                settings["DRIFT_STATE"] = str(Path(folder) / "drift.json")
            with running_server(options.command, settings) as server:
                yield Target(server.url, server.pid)


def measure_capacity(url: str, reference: Reference, seed: int, seconds: float = CALIBRATION_SECONDS) -> float:
    """Texts a second that the server answers when 32 clients keep it busy with tickets. Raises `RunError` if it answers none."""
    samples: list[Sample] = []
    requests = SCENARIOS["steady"].requests(seed + 1, reference)
    uvloop.run(closed_loop(url, requests, reference, samples.append, clients=CALIBRATION_CLIENTS, seconds=seconds))
    good = [sample for sample in samples if sample.outcome == OK]
    if not good:
        raise RunError(f"no capacity to be measured: {len(samples)} requests, none was answered")
    return len(good) / (max(sample.answered for sample in good) - min(sample.sent for sample in good))


def run_scenario(scenario: Scenario, options: Options, target: Target, reference: Reference, capacity: float) -> Result:
    """Run one scenario against a server, without gates. Raises `RunError`."""
    generator = options.generator or scenario.generator
    with tempfile.TemporaryDirectory(prefix="loadtest-") as folder:
        plan = _plan(scenario, options, target, capacity, reference, Path(folder))
        started, before = dt.datetime.now(dt.UTC), scrape(target.url)
        readings = _generate(plan, generator, target, Path(folder))
        after = scrape(target.url)
        begin, samples = read_samples(plan.samples)
    if not samples:
        raise RunError(
            f"{scenario.name}: no request was to be sent in {plan.seconds:g} s; a higher CAPACITY or DURATION gives some"
        )
    if not plan.clients and len(samples) < (planned := sum(1 for _ in poisson(plan.paces, plan.seed))):
        raise RunError(f"{scenario.name}: {generator} was to send {planned} requests and tells of {len(samples)}")
    return summarize(
        Run(
            scenario=scenario,
            generator=generator,
            seed=options.seed,
            started=started,
            target=options.host or HERE,
            server_settings={} if options.host else server_settings(os.environ) | QUIET | dict(scenario.settings),
            reference=reference,
            paces=plan.paces,
            begin=begin,
            samples=samples,
            readings=readings,
            before=before,
            after=after,
        )
    )


def _plan(scenario: Scenario, options: Options, target: Target, capacity: float, reference: Reference, folder: Path) -> Plan:
    return Plan(
        scenario=scenario.name,
        url=target.url,
        seed=options.seed,
        paces=scenario.paces(capacity, options.seconds(scenario)),
        reference=reference,
        samples=folder / "samples",
        clients=options.users if scenario is CLOSED else 0,
    )


def _generate(plan: Plan, generator: scenarios.Generator, target: Target, folder: Path) -> list[Reading]:
    """Run the generator in a process of its own. Raises `RunError` with what it said last if it fails."""
    log, limit = folder / "log", plan.seconds + ANSWER_SECONDS + START_SECONDS
    with (
        log.open("wb") as output,
        _generator(plan, generator, folder, output, "--headless", "--only-summary") as process,
        Monitor(target.url, target.process, process.pid) as monitor,
    ):
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            raise RunError(f"{generator} has not finished after {limit:.0f} s") from None
    if status != 0:
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise RunError(f"{generator} exited with {status}: " + "\n".join(said[-20:]))
    return monitor.readings


@contextmanager
def _generator(
    plan: Plan, generator: scenarios.Generator, folder: Path, output: IO[bytes] | None, *arguments: str
) -> Iterator[subprocess.Popen[bytes]]:
    """The process of a generator, which is never left behind; `arguments` are for Locust."""
    path = folder / "plan.json"
    write_plan(plan, path)
    commands = {
        "light": ["loadtest.light", str(path)],
        # Errors are in the samples, and judged here.
        "locust": [
            *("locust", "--locustfile", str(Path(__file__).with_name("locustfile.py")), "--host", plan.url),
            *("--loglevel", "WARNING", "--exit-code-on-error", "0", *arguments),
        ],
    }
    process = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", *commands[generator]], env=os.environ | {PLAN_VARIABLE: str(path)}, stdout=output, stderr=output
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def show_ui(scenario: Scenario, options: Options, target: Target, reference: Reference, capacity: float) -> None:
    """Locust's web page, until it is interrupted."""
    with tempfile.TemporaryDirectory(prefix="loadtest-") as folder:
        plan = _plan(scenario, options, target, capacity, reference, Path(folder))
        print(f"{scenario.name}: {scenario.description}; http://127.0.0.1:{options.ui_port}", flush=True)  # noqa: T201
        page = ("--web-host", "127.0.0.1", "--web-port", str(options.ui_port))
        with _generator(plan, "locust", Path(folder), None, *page) as process, contextlib.suppress(KeyboardInterrupt):
            process.wait()


def run_all(options: Options, gates: Mapping[str, Bounds]) -> bool:
    """Run the scenarios, each against a fresh server if it is ours, and write and print their results; whether all gates held."""
    capacity, passed = options.capacity, True
    options.out.mkdir(parents=True, exist_ok=True)
    for scenario in options.scenarios:
        with _target(options, scenario) as target:
            reference = _ask(scenario, options, target)
            capacity = capacity or _capacity(scenario, options, target, reference)
            result = run_scenario(scenario, options, target, reference, capacity)
            result = result.model_copy(update={"gates": check(result, gates.get(scenario.name, Bounds()))})
            report(result, options.out)
        passed &= all(gate.passed for gate in result.gates)
    return passed


def report(result: Result, folder: Path) -> None:
    """Write a result and its report, and print it."""
    from loadtest.report import write_report

    path = folder / f"{result.scenario}.json"
    write_result(result, path)
    written = [path, *write_report(result, folder)]
    print(describe(result), "  " + " ".join(map(str, written)), sep="\n", flush=True)  # noqa: T201 - the result is the output


def _ask(scenario: Scenario, options: Options, target: Target) -> Reference:
    return uvloop.run(ask(target.url, scenario.known_texts(options.seed), exact=options.exact))


def _capacity(scenario: Scenario, options: Options, target: Target, reference: Reference) -> float:
    """Measured, where it matters; for no longer than the run itself."""
    if scenario is CLOSED:
        return 0.0
    seconds = min(CALIBRATION_SECONDS, options.seconds(scenario))
    capacity = measure_capacity(target.url, reference, options.seed, seconds)
    print(f"capacity: {capacity:.0f} texts/s with {CALIBRATION_CLIENTS} clients", flush=True)  # noqa: T201
    return capacity


def main() -> int:
    """Run as the environment says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ui", action="store_true", help="Locust's web page instead of a run")
    arguments = parser.parse_args()
    allow_many_files()
    try:
        options = read_options(os.environ)
        gates = read_gates(options.gates)
        if not arguments.ui:
            return 0 if run_all(options, gates) else 1
        scenario = options.scenarios[0]
        with _target(options, scenario) as target:
            reference = _ask(scenario, options, target)
            capacity = options.capacity or _capacity(scenario, options, target, reference)
            show_ui(scenario, options, target, reference, capacity)
    except (OptionError, GatesError, AskError, RunError, ServerFailed, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
