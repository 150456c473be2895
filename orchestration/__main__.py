"""The command ``quorumeter``; ``python -m orchestration`` is the same."""

import sys
from importlib.util import find_spec

from orchestration.exit_codes import ExitCode

# One module of each package of the [bench] extra that the node does without.
_BENCH_MODULES = (
    "filelock",
    "hdrh",
    "jinja2",
    "locust",
    "matplotlib",
    "platformdirs",
    "psutil",
    "rich",
)


def main() -> None:
    """Run the command line and exit with its code; without its extra, say how to get it."""
    missing = [name for name in _BENCH_MODULES if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"quorumeter lacks {', '.join(missing)}: this installation is a node only; "
            "pip install 'quorumeter[bench]' adds the tool.\n"
        )
        sys.exit(ExitCode.USAGE)
    # Only now: it needs what was just looked for.
    from orchestration.ending import end  # noqa: PLC0415

    sys.exit(end(_run))


def _run() -> int:
    from orchestration.cli import run  # noqa: PLC0415 - an import that fails has a sentence, too

    return run(sys.argv[1:])


if __name__ == "__main__":
    main()
