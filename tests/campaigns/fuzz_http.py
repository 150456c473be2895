"""schemathesis over the whole HTTP API of a live leader and a live follower."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.campaigns.campaign import Violation
from tests.campaigns.nodes import Cluster

if TYPE_CHECKING:
    from tests.campaigns.campaign import Stage
    from tests.campaigns.nodes import Node

ROOT = Path(__file__).parents[2]
TOKEN = "a token for the fuzz"
FOLLOWERS, WRITE_QUORUM = 2, 1
SETTINGS = {"REQUEST_TIMEOUT": "0.2", "CLUSTER_TOKEN": TOKEN}
EXAMPLES, SHORT_EXAMPLES = 1000, 30
# Not among them: what asks for a schema of data that limits and idempotency keys depend on.
CHECKS = (
    "allow_header_conformance",
    "content_type_conformance",
    "missing_required_header",
    "negative_data_rejection",
    "no_bug",
    "response_headers_conformance",
    "response_schema_conformance",
    "status_code_conformance",
    "unsupported_method",
)


PROMOTE = "/admin/promote"


def fuzz_http(stage: Stage) -> str:
    """Fuzzes both roles, with the token and without; returns what was done.

    Raises:
        Violation: An answer is not as OpenAPI says, a node failed, or cannot write any more.
    """
    examples = SHORT_EXAMPLES if stage.options.short else EXAMPLES
    with Cluster(stage, "http", FOLLOWERS, WRITE_QUORUM, **SETTINGS) as cluster:
        cluster.start()
        cluster.wait_counting()
        for node in (cluster.leader, cluster.followers[0]):
            for token in (TOKEN, None):
                run_schemathesis(stage, node, token, examples, "--exclude-path", PROMOTE)
                if not cluster.is_up(node):
                    raise Violation(f"{node.name} is not up any more.")
        # Last, for it changes who leads.
        run_schemathesis(stage, cluster.followers[0], TOKEN, examples, "--include-path", PROMOTE)
        cluster.find_leader()
        restore(cluster)
        cluster.check_logs()
    return "HTTP of both roles"


def run_schemathesis(
    stage: Stage, node: Node, token: str | None, examples: int, *options: str
) -> None:
    """Runs schemathesis against a node.

    Raises:
        Violation: It found something; the evidence is its report.
    """
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{node.url}/openapi.json"]
    command += ["--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"]
    command += ["--max-examples", str(examples), "--seed", str(stage.options.seed)]
    command += ["--generation-database", "none", "--suppress-health-check", "all", "--no-color"]
    command += options
    if token is not None:
        command += ["--header", f"Authorization: Bearer {token}"]
    hooks = {"SCHEMATHESIS_HOOKS": "tests.campaigns.fuzz_checks", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command,
        env={**os.environ, **hooks},
        cwd=stage.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    with_token = "with" if token else "without"
    if done.returncode:
        raise Violation(
            f"schemathesis found something on the {node.name} {with_token} token.",
            failures_of(lines) + done.stderr.splitlines(),
        )
    generated = next((line.strip() for line in lines if " generated, " in line), "nothing")
    stage.say(f"  {node.name} {with_token} token: {generated}")


def failures_of(lines: list[str]) -> list[str]:
    """Returns what of schemathesis' report tells of failures; all of it if nothing does."""
    begun = [
        number for number, line in enumerate(lines) if " FAILURES " in line or "ERRORS" in line
    ]
    return [line for line in lines[min(begun, default=0) :] if line.strip()]


def restore(cluster: Cluster) -> None:
    """Undoes what the fuzz may have set, and looks whether the store works.

    Raises:
        Violation: It does not.
    """
    admin = f"{cluster.leader.url}/admin"
    calls: list[tuple[str, dict[str, object]]] = [
        ("quorum", {"write_quorum": FOLLOWERS}),
        ("delays", {"min_delay_ms": 0, "max_delay_ms": 0}),
        *((f"links/{node.name}", {"state": "up"}) for node in cluster.followers),
    ]
    for path, body in calls:
        answer = cluster.client.post(f"{admin}/{path}", json=body)
        if answer.is_error:
            raise Violation(f"/admin/{path} answers {answer.status_code}.", [answer.text])
    cluster.wait_counting()
    answer = cluster.client.put(f"{cluster.leader.url}/kv/after", json={"value": "the fuzz"})
    if answer.status_code != 200:
        raise Violation("The store does not take a write after the fuzz.", [answer.text])
