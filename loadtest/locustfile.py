"""Locust: clients that send one ticket of mixed length at a time, each as soon as the last was answered."""

from __future__ import annotations

import itertools

from locust import FastHttpUser, constant, events, task
from locust.env import Environment

from loadtest.corpus import tickets

_seeds = itertools.count(1)


class TicketUser(FastHttpUser):
    """A closed-loop client: no pause between requests, so the number of users sets the load."""

    wait_time = constant(0)

    def on_start(self) -> None:
        """Give each user tickets of its own."""
        self.tickets = tickets(next(_seeds))

    @task
    def classify(self) -> None:
        """One ticket; anything but a well-formed answer counts as a failure."""
        with self.client.post("/classify", json={"text": next(self.tickets)}, catch_response=True) as response:
            if response.status_code != 200:
                response.failure(f"status {response.status_code}")
                return
            answer = response.json()
            if not answer.get("prediction") or not 0.0 < answer.get("confidence", -1.0) <= 1.0:
                response.failure("no prediction with a confidence")


def report(environment: Environment, **_: object) -> None:
    """Print the outcome in one line; any failed request, or none at all, fails the run."""
    total = environment.stats.total
    p50, p95, p99 = (total.get_response_time_percentile(share) for share in (0.5, 0.95, 0.99))
    print(  # noqa: T201 - the report is the output
        f"{total.num_requests} requests, {total.num_failures} failed, {total.total_rps:.0f} a second;"
        f" p50 {p50} ms, p95 {p95} ms, p99 {p99} ms"
    )
    environment.process_exit_code = 1 if total.num_failures or not total.num_requests else 0


events.quitting.add_listener(report)  # type: ignore[no-untyped-call]
