"""The command ``quorumeter``; ``python -m orchestration`` is the same."""

import sys
from importlib.util import find_spec

USAGE_EXIT_CODE = 64
# One module of each package of the [bench] extra that the node does without.
_BENCH_MODULES = ("hdrh", "jinja2", "locust", "matplotlib", "platformdirs", "psutil", "rich")


def main() -> None:
    """Run the command line and exit with its code; without its extra, say how to get it."""
    missing = [name for name in _BENCH_MODULES if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"quorumeter lacks {', '.join(missing)}: this installation is a node only; "
            "pip install 'quorumeter[bench]' adds the tool.\n"
        )
        sys.exit(USAGE_EXIT_CODE)
    # Only now: it needs what was just looked for.
    from orchestration.cli import run  # noqa: PLC0415

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
