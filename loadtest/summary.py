"""A result in a few lines, for the terminal."""

from __future__ import annotations

from loadtest.results import Result
from loadtest.scenarios import SCENARIOS


def noticed(result: Result) -> str | None:
    """When drift detection noticed that the requests had changed; None if they did not."""
    scenario, after = SCENARIOS.get(result.scenario), result.noticed_after
    if scenario is None or scenario.later is None:
        return None
    if after is None:
        return "not noticed by the server"
    return f"noticed {after:.1f} s after it" if after >= 0 else f"reported {-after:.1f} s before it: a false alarm"


def describe(result: Result) -> str:
    """What was sent, how it went, and which gates held."""
    at, late = result.latency, result.lateness
    outcomes = ", ".join(f"{number} {name}" for name, number in (result.errors | result.expected).items())
    rates = f"{result.offered_rate:.1f} requests/s offered, {result.achieved_rate:.1f} achieved, for {result.seconds:g} s"
    counts = f"{result.requests} requests, {sum(result.errors.values())} failed{f' ({outcomes})' if outcomes else ''}"
    cores = f"cores: generator {result.client_cpu:.2f}"
    if result.server_cpu is not None:
        cores += f", server {result.server_cpu:.2f}"
    if result.other_cpu is not None:
        cores += f", others {result.other_cpu:.2f} of {result.machine.cores}"
    lines = [f"{result.scenario}, by {result.generator}: {result.description}", f"  {rates}; {counts}"]
    if at is not None:
        spread = {"p50": at.p50, "p90": at.p90, "p95": at.p95, "p99": at.p99, "p99.9": at.p999, "max": at.max}
        lines.append("  " + ", ".join(f"{name} {value:.1f} ms" for name, value in spread.items()))
    if late is not None:
        cores += f"; sent late by {late.p50:.2f} ms (p50), {late.p99:.2f} ms (p99)"
    lines.append(f"  {cores}")
    if (said := noticed(result)) is not None:
        lines.append(f"  the change was {said}")
    lines += [
        f"  {'holds ' if gate.passed else 'BROKEN'} {gate.name}:"
        f" {'not measured' if gate.measured is None else f'{gate.measured:.4g}'}, bound {gate.bound:g}"
        for gate in result.gates
    ]
    return "\n".join(lines)
