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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent
from flask import Response, jsonify, request
from flask_login import current_user
from locust.argument_parser import ui_extra_args_dict
from locust.runners import MasterRunner, WorkerRunner

from orchestration.load.drivers import DriverError
from orchestration.load.drivers.http_kv import HttpKvDriver
from orchestration.load.form import hidden_fields, origin_of, own_names, why_foreign
from orchestration.load.options import add_options, plan_from, sizes_text
from orchestration.load.plan import LoadPlan, Share
from orchestration.load.records import load_records
from orchestration.load.run import Run

if TYPE_CHECKING:
    from locust import User
    from locust.argument_parser import LocustArgumentParser
    from locust.env import Environment
    from locust.event import Events
    from locust.web import WebUI

USAGE_EXIT_CODE = 2
FORBIDDEN = 403
_FINISHED_MESSAGE = "load_finished"
# What can keep a run from starting; each has a sentence for the user.
_REFUSALS = (ValueError, OSError, DriverError)
# In place of the number of processes: tells the workers that the master refused to start.
_REFUSED = 0

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _State:
    """What hangs on the environment.

    Attributes:
        run: that which goes on.
        finished: the processes that have carried out their share of it.
        origin: of the store that was named at the start; it alone gets the token, with the nodes
            that it names. A form may name any server.
    """

    run: Run | None = None
    finished: set[str] = field(default_factory=set)
    origin: str | None = None


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


def current_run(environment: Environment) -> Run | None:
    """The run that the environment is in; None where a start was refused."""
    return _state(environment).run


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
    _state(environment).origin = origin_of(environment.host)
    runner.register_message(_FINISHED_MESSAGE, _on_finished)
    if web_ui is not None and web_ui.app is not None:
        check = partial(_check_request, environment, web_ui)
        web_ui.app.before_request(check)
    elif options is not None:
        try:
            _checked_plan(vars(options), environment.host)
        except ValueError as error:
            logger.error("%s", error)  # noqa: TRY400 - a sentence for the user, no traceback
            sys.exit(USAGE_EXIT_CODE)


def _check_request(environment: Environment, web_ui: WebUI) -> Any:
    return _refuse_foreign(web_ui) or _check_form(environment, web_ui)


def _refuse_foreign(web_ui: WebUI) -> Response | None:
    """Answers what another web page asks for; None lets it pass."""
    if _is_before_login(web_ui):
        return None
    names = None if web_ui.web_login else own_names(web_ui.host)
    why = why_foreign(request.method, request.path, dict(request.headers), own_names=names)
    if why is None:
        return None
    response: Response = jsonify({"success": False, "message": why})
    response.status_code = FORBIDDEN
    return response


def _is_before_login(web_ui: WebUI) -> bool:
    """Whether Locust sends who asks to the login, which may be reached by any name and link."""
    return bool(web_ui.web_login and not current_user.is_authenticated)


def _check_form(environment: Environment, web_ui: WebUI) -> Any:
    """Answers a start from the web form that will not do; None lets Locust handle it."""
    if request.method != "POST" or not request.path.endswith("/swarm"):
        return None
    if _is_before_login(web_ui):
        return None
    options = vars(environment.parsed_options or object())
    try:
        if hidden := hidden_fields(request.form, options, ui_extra_args_dict()):
            msg = f"{', '.join(hidden)} can only be set on the command line"
            raise ValueError(msg)
        values = {**options, **request.form.to_dict()}
        plan, host = _checked_plan(values, request.form.get("host") or environment.host)
        _prepare_store(plan, host, _token_for(environment, host))
    except _REFUSALS as error:
        return jsonify({"success": False, "message": _reason(error), "host": environment.host})
    return None


def _checked_plan(values: dict[str, Any], host: str | None) -> tuple[LoadPlan, str]:
    if not host:
        msg = "No store to load: give its leader's address, --host http://127.0.0.1:8000"
        raise ValueError(msg)
    HttpKvDriver(host)
    return plan_from(values), host


def _on_test_start(environment: Environment, **_: object) -> None:
    state, runner = _state(environment), environment.runner
    options: Any = environment.parsed_options
    state.finished.clear()
    if isinstance(runner, MasterRunner):
        # Locust sends its options along with the order to start; so until all is well:
        options.load_processes = _REFUSED
        options.store_origin = state.origin
    elif isinstance(runner, WorkerRunner):
        state.origin = getattr(options, "store_origin", None)
    try:
        plan, host = _checked_plan(vars(options), environment.host)
        if not isinstance(runner, WorkerRunner):
            token = _token_for(environment, host)
            _prepare_store(plan, host, token)
            if any(getattr(user, "needs_records", False) for user in environment.user_classes):
                _prepare_records(plan, host, token)
        if isinstance(runner, MasterRunner):
            options.load_processes = _checked_processes(runner)
        elif getattr(options, "load_processes", 1) != _REFUSED:
            state.run = _new_run(environment, plan)
    except _REFUSALS as error:
        _refuse(environment, _reason(error))


def _checked_processes(runner: MasterRunner) -> int:
    processes = runner.worker_count
    if runner.target_user_count < processes:
        msg = f"{processes} load processes need at least {processes} users (--users), one each"
        raise ValueError(msg)
    return processes


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
        token=_token_for(environment, str(environment.host)),
        folder=folder,
        request_event=environment.events.request,
        on_done=lambda: _announce_finished(environment),
    )


def _prepare_store(plan: LoadPlan, url: str, token: str | None) -> None:
    """Checks that a leader answers at `url`, and sets its write quorum if the plan says so."""
    leader = HttpKvDriver(url, token=token)
    try:
        if leader.get_json("/health").get("role") == "follower":
            msg = f"{url} is a follower; give the leader's address with --host"
            raise ValueError(msg)
        if plan.write_quorum is not None:
            leader.post_json("/admin/quorum", {"write_quorum": plan.write_quorum})
            logger.info("Set the write quorum of %s to %d", url, plan.write_quorum)
    except DriverError as error:
        detail = error.detail or "is the leader running there?"
        msg = f"{url} cannot be used ({error.code}): {detail}"
        raise ValueError(msg) from error
    finally:
        leader.close()


def _prepare_records(plan: LoadPlan, url: str, token: str | None) -> None:
    leader = HttpKvDriver(url, token=token)
    try:
        if load_records(leader, plan):
            logger.info("Wrote %d records of %s bytes", plan.keys, sizes_text(plan.value_bytes))
    except DriverError as error:
        msg = f"The records could not be written ({error.code}): {error.detail}"
        raise ValueError(msg) from error
    finally:
        leader.close()


def _token_for(environment: Environment, url: str) -> str | None:
    """The cluster's token for the store that was named at the start, and for no other one."""
    origin = _state(environment).origin
    if origin is None or origin_of(url) != origin:
        return None
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


def _refuse(environment: Environment, message: str) -> None:
    """Says why nothing starts, and has Locust stop: users that start meanwhile find no run."""
    logger.error("%s", message)
    environment.process_exit_code = USAGE_EXIT_CODE
    gevent.spawn(_end, environment)


def _reason(error: Exception) -> str:
    return f"{error.code} {error.detail}".rstrip() if isinstance(error, DriverError) else str(error)


def _on_test_stop(environment: Environment, **_: object) -> None:
    state = _state(environment)
    run, state.run = state.run, None
    if run is not None:
        run.close()
