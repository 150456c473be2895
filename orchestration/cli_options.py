"""What the command line's commands share: options, and values read by their parsers."""

from collections import Counter
from collections.abc import Callable
from typing import Any, get_args

import click

from orchestration import limits
from orchestration.exit_codes import MEANINGS
from orchestration.scenario import DelayModel

EXIT_CODES = (
    f"Exit codes: {'; '.join(f'{code:d} {meaning}' for code, meaning in MEANINGS.items())}; "
    "130 and 143 stopped. docs/reports.md has them in full."
)


class Command(click.Command):
    """A command whose help shows an example, and whose options are given once each.

    Of two values of one option one would be ignored.
    """

    def __init__(self, name: str | None, *, example: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.example = example
        # A backspace keeps click from filling the lines that follow.
        self.epilog = f"\b\nExample:\n  {example}\n\n{EXIT_CODES}"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Reads a command line.

        Raises:
            click.UsageError: An option with one value is given twice.
        """
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        for param, times in Counter(order).items():
            has_one = isinstance(param, click.Option) and not (param.multiple or param.is_flag)
            if has_one and times > 1:
                raise click.UsageError(f"{param.opts[0]} is given {times} times: give it once.")
        return super().parse_args(ctx, args)


class Parsed(click.ParamType[Any]):
    """An option's value, read by one of `limits`' parsers, which name the option in errors."""

    def __init__(self, metavar: str, parse: Callable[[str, str], Any]) -> None:
        self.name = metavar
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The parsed value."""
        del ctx
        option = param.opts[0] if param is not None else self.name
        return self._parse(value, option) if isinstance(value, str) else value


DELAY = Parsed("MS:MS", limits.DELAY_MS.parse)
URL = Parsed("URL", limits.parse_url)
LOAD_URL = Parsed("URL", limits.parse_load_url)
FOLLOWERS = Parsed("N", limits.FOLLOWERS.parse)
delay_option = click.option("--delay", "delay_ms", type=DELAY, help="Link delays in ms (0:100).")
delay_model_option = click.option(
    "--delay-model",
    type=click.Choice(get_args(DelayModel)),
    help="independent (default): an entry may overtake others on its link; fifo: none does, as "
    "in the stream of a WAL or a binlog.",
)
attach_option = click.option("--attach", "attach_url", type=URL, help="Leader of a cluster.")
locust_html_option = click.option(
    "--locust-html",
    "has_locust_html",
    is_flag=True,
    help="Keep Locust's own page of each trial (locust.html, about 1 MB).",
)
json_option = click.option("--json", "is_json", is_flag=True, help="Print JSON.")
engine_option = click.option(
    "--engine",
    type=click.Choice(["local", "compose"]),
    help="Where the nodes run: processes (default), or Docker Compose.",
)
