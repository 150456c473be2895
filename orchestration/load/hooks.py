"""Locust's events, wired to the load: options in, a run started and ended, bad values refused.

What the hooks share hangs on Locust's environment, so that two environments never mix.
"""

# mypy: disable-error-code="no-untyped-call"
# Locust's event hooks are not typed.
from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import gevent
from flask import jsonify, request
from locust.exception import StopTest
from locust.runners import MasterRunner, WorkerRunner

from orchestration.load.drivers import DriverError
from orchestration.load.drivers.http_kv import HttpKvDriver
from orchestration.load.options import add_options, plan_from
from orchestration.load.run import Run
from orchestration.load.schedule import LoadPlan, Share

if TYPE_CHECKING:
    from locust import User
    from locust.argument_parser import LocustArgumentParser
    from locust.env import Environment
    from locust.event import Events
    from locust.web import WebUI

USAGE_EXIT_CODE = 2
_FINISHED_MESSAGE = "load_finished"

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _State:
    """What hangs on the environment."""

    run: Run | None = None
    finished: set[str] = field(default_factory=set)


def install(events: Events, scenario_base: type[User]) -> None:
    """Listens to Locust's events; `scenario_base`'s subclasses are the scenarios."""

    def on_parser(parser: LocustArgumentParser, **_: object) -> None:
        scenarios = scenario_base.__subclasses__()
        # With several scenarios loaded nobody knows yet which will run: none sets the defaults.
        defaults = scenarios[0].option_defaults if len(scenarios) == 1 else {}  # type: ignore[attr-defined]
        add_options(parser, defaults)

    events.init_command_line_parser.add_listener(on_parser)
    events.init.add_listener(_on_init)
    events.test_start.add_listener(_on_test_start)
    events.test_stop.add_listener(_on_test_stop)
    events.quitting.add_listener(_on_test_stop)


def current_run(environment: Environment) -> Run:
    """The run that the environment is in."""
    run = _state(environment).run
    if run is None:
        msg = "no load is running: users start only after test_start"
        raise RuntimeError(msg)
    return run


def _state(environment: Environment) -> _State:
    state = getattr(environment, "quorumeter", None)
    if not isinstance(state, _State):
        state = _State()
        environment.quorumeter = state  # type: ignore[attr-defined]
    return state


def _on_init(environment: Environment, web_ui: WebUI | None, **_: object) -> None:
    runner, options = environment.runner, environment.parsed_options
    if runner is None or isinstance(runner, WorkerRunner):
        return
    runner.register_message(_FINISHED_MESSAGE, _on_finished)
    if web_ui is not None and web_ui.app is not None:
        web_ui.app.before_request(lambda: _check_form(environment))
    elif options is not None:
        try:
            _checked_plan(vars(options), environment.host)
        except ValueError as error:
            logger.error("%s", error)  # noqa: TRY400 - a sentence for the user, no traceback
            sys.exit(USAGE_EXIT_CODE)


def _check_form(environment: Environment) -> Any:
    """Answers a start from the web form that will not do; None lets Locust handle it."""
    if request.method != "POST" or not request.path.endswith("/swarm"):
        return None
    try:
        _checked_plan(
            {**vars(environment.parsed_options or object()), **request.form.to_dict()},
            request.form.get("host") or environment.host,
        )
    except ValueError as error:
        return jsonify({"success": False, "message": str(error), "host": environment.host})
    return None


def _checked_plan(values: dict[str, Any], host: str | None) -> LoadPlan:
    if not host:
        msg = "No store to load: give its leader's address, --host http://127.0.0.1:8000"
        raise ValueError(msg)
    HttpKvDriver(host)
    return plan_from(values)


def _on_test_start(environment: Environment, **_: object) -> None:
    state, runner, options = _state(environment), environment.runner, environment.parsed_options
    state.finished.clear()
    try:
        plan = _checked_plan(vars(options), environment.host)
        if isinstance(runner, MasterRunner):
            _prepare_workers(runner, options)
        if not isinstance(runner, WorkerRunner):
            _set_write_quorum(plan, str(environment.host))
        if not isinstance(runner, MasterRunner):
            state.run = _new_run(environment, plan)
    except (ValueError, OSError) as error:
        _refuse(environment, str(error))
    except DriverError as error:
        _refuse(
            environment,
            f"{environment.host} cannot be used: {error.code} {error.detail}".rstrip()
            + ". Is the leader running there?",
        )


def _prepare_workers(runner: MasterRunner, options: Any) -> None:
    processes = runner.worker_count
    if runner.target_user_count < processes:
        msg = f"{processes} load processes need at least {processes} users (--users), one each"
        raise ValueError(msg)
    # Locust sends its options along with the order to start.
    options.load_processes = processes


def _new_run(environment: Environment, plan: LoadPlan) -> Run:
    runner, options = environment.runner, environment.parsed_options
    index = runner.worker_index if isinstance(runner, WorkerRunner) else 0
    folder = Path(options.results_dir) if options and options.results_dir else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    return Run(
        plan=plan,
        share=Share(index, getattr(options, "load_processes", 1)),
        url=str(environment.host),
        token=_token(),
        folder=folder,
        request_event=environment.events.request,
        on_done=lambda: _announce_finished(environment),
    )


def _set_write_quorum(plan: LoadPlan, url: str) -> None:
    if plan.write_quorum is None:
        return
    leader = HttpKvDriver(url, token=_token())
    leader.post_json("/admin/quorum", {"write_quorum": plan.write_quorum})
    leader.close()
    logger.info("Set the write quorum of %s to %d", url, plan.write_quorum)


def _token() -> str | None:
    return os.environ.get("CLUSTER_TOKEN") or None


def _announce_finished(environment: Environment) -> None:
    runner = environment.runner
    if runner is not None:
        runner.send_message(_FINISHED_MESSAGE, str(getattr(runner, "worker_index", 0)))


def _on_finished(environment: Environment, msg: Any, **_: object) -> None:
    """Ends the test once every process has carried out its share."""
    finished = _state(environment).finished
    finished.add(msg.data)
    options = environment.parsed_options
    if len(finished) >= getattr(options, "load_processes", 1):
        gevent.spawn(_end, environment)


def _end(environment: Environment) -> None:
    runner, options = environment.runner, environment.parsed_options
    if runner is None:
        return
    if options is not None and options.headless:
        runner.quit()
    else:
        runner.stop()


def _refuse(environment: Environment, message: str) -> NoReturn:
    """Says why nothing starts, and has Locust stop."""
    logger.error("%s", message)
    environment.process_exit_code = USAGE_EXIT_CODE
    gevent.spawn(_end, environment)
    raise StopTest


def _on_test_stop(environment: Environment, **_: object) -> None:
    state = _state(environment)
    run, state.run = state.run, None
    if run is not None:
        run.close()
