"""Implementations of the commands that `tts_tui.cli.main` declares."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from msgspec.structs import replace

from tts_tui import registry
from tts_tui.backends.local import download
from tts_tui.budget import Budget
from tts_tui.displays import session
from tts_tui.displays.base import is_terminal
from tts_tui.displays.factory import make
from tts_tui.displays.progress import Progress
from tts_tui.errors import TTSError, UnknownName, UsageError
from tts_tui.formatting import one_line
from tts_tui.plan import Plan
from tts_tui.protocols import Discoverable
from tts_tui.solver import Solver, check_problem
from tts_tui.tree.recording import Recording, load
from tts_tui.tree.search_tree import SearchTree
from tts_tui.ui.model_loader import ModelLoader, quieten

if TYPE_CHECKING:
    from tts_tui.controller.calibration import Calibration
    from tts_tui.ui.settings import Settings

_PLAN = (
    "n", "m", "score", "vote", "variant", "speculation", "step_tokens", "total_tokens", "max_depth", "seed",
    "target_tokens", "target_accuracy",
)  # fmt: skip
_AUTO = "auto"
_TARGETS = ("target_tokens", "target_accuracy")
"""Options that only `auto` supports."""


def solve_problem(problem: str, given: Mapping[str, Any]) -> int:
    """Run `tts-tui solve`, checking everything that needs no model before one is loaded."""
    problem = check_problem(problem)
    if given["display"] != "tui":  # the UI can switch to other plans later
        given = {**given, "calibration": for_auto(given, "calibration", given["strategy"] == _AUTO)}
    solver = make_solver(*specs(given), given)
    plan = make_plan(solver, given)
    solver.check(plan)
    record: Path | None = given["record"]
    if record is not None:
        check_recordable(record)
    if given["display"] == "tui":
        from tts_tui.ui import launch

        return launch.launch(ModelLoader(solver, *specs(given)), plan, settings(), launch.problem(problem, record))
    display = make(given["display"])
    policy, prm = specs(given)
    load_models(policy, prm if solver.needs_prm(plan) else "none", talks=display.talks)
    return session.complete(session.search(solver, display, problem, plan, record))


def replay_file(path: Path, name: str | None, speed: float | None) -> int:
    """Run `tts-tui replay`."""
    if speed is not None and not 0 <= speed < float("inf"):
        raise UsageError(f"the speed must be 0 or more, not {speed:g}")
    recording = Recording.load(path)
    recording.tree()  # refuse an invalid recording before drawing anything
    if name == "tui" or (name is None and is_terminal(sys.stdout) and _can_open()):
        return _show(recording, 1.0 if speed is None else speed)
    live = name == "live" or (name is None and is_terminal(sys.stdout))
    pace = speed if speed is not None else 1.0 if live else 0.0
    display = make(name, title=f"replay ×{pace:g}" if pace else "replay")
    return session.complete(session.replay(display, recording.events, pace))


def resume_file(path: Path, given: Mapping[str, Any]) -> int:
    """Run `tts-tui resume`."""
    recording = Recording.load(path)
    tree = recording.tree()
    policy, prm = recorded_models(tree, given)
    budget = limits(given, tree.plan.budget)
    if given["display"] == "tui":
        from tts_tui.ui import launch

        models = ModelLoader(make_solver(policy, prm, given), policy, prm)
        return launch.launch(models, tree.plan, settings(), launch.resumption(recording, budget))
    display = make(given["display"])
    if tree.finished is not None and tree.finished.reason in ("solved", "unsolved"):
        display.past(recording.events)
        display.conclude(tree.finished)
        return session.exit_code(tree.finished)
    solver = make_solver(policy, prm, given)
    load_models(policy, prm if solver.needs_prm(tree.plan) else "none", talks=display.talks)
    return session.complete(session.resume(solver, display, recording, budget))


# -- the terminal UI ---------------------------------------------------------------------------------------------------


def open_ui(given: Mapping[str, Any]) -> int:
    """Run `tts-tui` or `tts-tui tui`."""
    from tts_tui.ui import launch

    chosen = settings()
    policy, prm = specs(given)
    solver = make_solver(policy, prm, given)
    plan = make_plan(solver, given)
    solver.check(plan)
    return launch.launch(ModelLoader(solver, policy, prm), plan, chosen)


def _can_open() -> bool:
    from tts_tui.ui import launch

    return launch.can_open()


def _show(recording: Recording, speed: float) -> int:
    """Replay in the terminal UI; new runs started from it use the models in the settings, else the embedded ones."""
    from tts_tui.ui import launch

    chosen = settings()
    policy, prm = specs({"policy": chosen.policy, "prm": chosen.prm})
    solver = Solver(policy, prm)
    models = ModelLoader(solver, policy, prm)
    return launch.launch(models, solver.plan(), chosen, launch.recording(recording, speed))


def compare_files(first: Path, second: Path) -> int:
    """Run `tts-tui compare`."""
    from tts_tui.ui import launch

    left, right = Recording.load(first), Recording.load(second)
    return launch.launch(None, None, settings(), launch.comparison(left, right))


def export_file(path: Path, out: Path) -> int:
    """Run `tts-tui export`."""
    from tts_tui.displays import export

    export.write(load(path), out)
    print(f"Written: {out}")
    return 0


def list_keys() -> int:
    """Run `tts-tui keys`."""
    from tts_tui.ui import keys

    for id, (key, said) in keys.known().items():
        print(f"{id:<24} {key:<24} {said}")
    return 0


def serve_ui(host: str, port: int, arguments: Sequence[str], places: int, shared: bool) -> int:
    """Run `tts-tui serve-ui`."""
    from tts_tui.ui import web

    return web.serve(host, port, ["tui", *arguments], places=places, shared=shared)


def settings() -> Settings:
    """Return the user's settings, checked.

    Raises:
        ConfigError: A setting is invalid; the message names it.
    """
    from tts_tui.ui.settings import load as load_settings

    chosen = load_settings()
    if chosen.keymap or chosen.theme:
        from tts_tui.ui import keys

        keys.check(chosen)
    return chosen


# -- plans -------------------------------------------------------------------------------------------------------------


def limits(given: Mapping[str, Any], before: Budget | None = None) -> Budget | None:
    """Return `before` with the limits in the options replaced; None if no limit is given.

    Raises:
        PlanError: A limit is not positive.
    """
    names = {"budget_tokens": "tokens", "budget_flops": "flops", "timeout": "seconds"}
    changes = {field: given[name] for name, field in names.items() if given.get(name) is not None}
    return replace(before or Budget(), **changes) if changes else None


def make_plan(solver: Solver, given: Mapping[str, Any]) -> Plan:
    """Build a plan from the options, with defaults for the strategy and the reward model.

    Raises:
        UsageError: The options contradict each other.
    """
    wishes = {name: for_auto(given, name, given["strategy"] == _AUTO) for name in _TARGETS}
    changes = {name: value for name, value in {**given, **wishes}.items() if name in _PLAN and value is not None}
    budget = limits(given)
    if budget is not None:
        changes["budget"] = budget
    if not (given["strategy"] in ("cot", "majority") or {"score", "vote"} <= changes.keys()):
        meet(solver)
    plan = solver.plan(given["strategy"], **changes)
    if not changes and given["strategy"] == Plan().strategy:
        plan = plan.replace(why="the default; score and vote suit the reward model")
    drawing = {name: given[name] for name in ("temperature", "top_p") if given[name] is not None}
    return plan.replace(sampling=replace(plan.sampling, **drawing)) if drawing else plan


def for_auto(given: Mapping[str, Any], name: str, auto: bool, needs: str = "--strategy auto") -> Any:
    """Return the value of an option that only `auto` supports, None for other strategies.

    Args:
        given: All options.
        name: Name of the option.
        auto: Whether the strategy is `auto`.
        needs: What the error message tells the user to add.

    Raises:
        UsageError: The option was given on the command line for another strategy.
    """
    value = suitable(given, name, auto)
    if value is not None and not auto:
        raise UsageError(f"--{name.replace('_', '-')} is for {needs}: add that, or leave it out")
    return value


def meet(solver: Solver) -> None:
    """Ask a reward model on a server what it is, to choose its default score and vote."""
    prm = solver.prm
    if isinstance(prm, Discoverable) and not prm.profile:
        with suppress(TTSError):  # an unreachable server is reported when it is needed
            asyncio.run(prm.discover())


def specs(given: Mapping[str, Any]) -> tuple[str, str]:
    """Return the specs of policy and reward model from the options, with the embedded models as defaults."""
    return given["policy"] or download.EMBEDDED.name, given["prm"] or download.EMBEDDED.name


def make_solver(policy: str, prm: str, given: Mapping[str, Any]) -> Solver:
    """Build a solver from the options.

    Raises:
        UsageError: A model is unknown, or options do not fit the models.
    """
    remote, of_prm = is_server(policy), prm.partition(":")[0]
    server = {
        "api_key": suitable(given, "api_key", remote) if remote or of_prm != "sglang" else None,
        "concurrency": suitable(given, "concurrency", remote),
        "max_rps": suitable(given, "max_rps", remote),
    }
    rewards = {
        "tokenizer": suitable(given, "prm_tokenizer", of_prm == "sglang"),
        "allow_pickle": suitable(given, "allow_pickle", of_prm == "hf") or None,
        "api_key": given["api_key"] if of_prm == "sglang" else None,
    }
    made = registry.policy(policy, **_given(server))
    return Solver(made, registry.reward_model(prm, made, **_given(rewards)), _calibration(given.get("calibration")))


def _calibration(path: Path | None) -> Calibration | None:
    if path is None:
        return None
    from tts_tui.controller.calibration import load

    return load(path)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def suitable(given: Mapping[str, Any], name: str, fits: bool) -> Any:
    """Return the value of an option, None if it does not apply to this call and was not given on the command line.

    Values from the environment or the settings are ignored where they do not apply. Values from the command line are
    always returned, so that the caller can refuse them.
    """
    context = click.get_current_context(silent=True)
    typed = context is None or context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    return given[name] if fits or typed else None


def check_recordable(path: Path) -> None:
    """Check that a new recording can be written to `path`, before a model is loaded.

    Raises:
        UsageError: The file exists, or its folder is not writable.
    """
    folder = path.parent
    try:
        exists, known = path.exists(), folder.is_dir()
    except OSError as error:
        raise UsageError(f"cannot write the recording: {error.strerror or error}") from error
    if path.is_dir():
        raise UsageError(f"cannot write the recording {path}: it is a folder; give a file's name")
    if exists:
        raise UsageError(f"{path} exists already: choose another name, or continue it with `tts-tui resume {path}`")
    if not known:
        raise UsageError(f"cannot write the recording {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write the recording {path}: the folder {folder} is not writable")


def recorded_models(tree: SearchTree, given: Mapping[str, Any]) -> tuple[str, str]:
    """Return the specs of the models to resume with, from the options or else from the recording.

    Raises:
        UsageError: A recorded model is not the embedded one and no option says where it is.
    """
    from tts_tui.backends.adapter.reward_model import TITLE

    name, recorded = tree.start.policy.name, tree.start.prm
    embedded = name in (download.EMBEDDED.title, download.EMBEDDED.name)
    policy = suitable(given, "policy", not embedded) or (download.EMBEDDED.name if embedded else None)
    if policy is None:
        raise UsageError(f"the recording was made with the policy {one_line(name)}: say where it is with --policy")
    known = "none" if recorded is None else download.EMBEDDED.name if recorded.name == TITLE else None
    prm = suitable(given, "prm", known is None) or known
    if prm is None:
        assert recorded is not None
        raise UsageError(
            f"the recording was made with the reward model {one_line(recorded.name)}: say where it is with --prm"
        )
    return policy, prm


# -- models ------------------------------------------------------------------------------------------------------------


def load_models(policy: str, prm: str, *, talks: bool = True) -> None:
    """Silence libraries, download the embedded model on first use, and announce that models are being loaded."""
    quieten()
    if download.EMBEDDED.name in (policy, prm) and not download.is_present():
        session.note(f"the model {download.EMBEDDED.title} is not here yet: taking it once, for good")
        with Progress(sys.stderr) as progress:
            download.pull(progress)
    if talks:
        more = "" if prm in ("none", download.EMBEDDED.name) else f", then {_coming(prm)}"
        session.note(f"{_coming(policy)}{more} …")


def _coming(spec: str) -> str:
    return f"{'connecting to' if is_server(spec) else 'loading'} {one_line(spec, 100)}"


def is_server(spec: str) -> bool:
    """Return whether a spec names a model on a server."""
    return spec.partition(":")[0] in ("sglang", "openai")


def list_models() -> int:
    """Run `tts-tui models list`."""
    for model in download.MODELS:
        here = f"here, in {download.model_path(model)}" if download.is_present(model) else "not here"
        sizes = f"{model.download_bytes / 1e6:.0f} MB to download, {model.disk_bytes / 1e6:.0f} MB on disk"
        print(f"{model.name:<12} {model.title} ({model.licence}), {sizes}; {here}")
    return 0


def pull_model(name: str) -> int:
    """Run `tts-tui models pull NAME`."""
    model = _named(name)
    if download.is_present(model):
        print(f"{model.title} is here already, in {download.model_path(model)}")
        return 0
    with Progress(sys.stderr) as progress:
        folder = download.pull(progress, model)
    print(f"{model.title} is ready, in {folder}")
    return 0


def remove_model(name: str) -> int:
    """Run `tts-tui models remove NAME`."""
    model = _named(name)
    print(f"{model.title} is removed" if download.remove(model) else f"{model.title} is not here")
    return 0


def _named(name: str) -> download.EmbeddedModel:
    for model in download.MODELS:
        if model.name == name:
            return model
    raise UnknownName("model", name, [model.name for model in download.MODELS])
