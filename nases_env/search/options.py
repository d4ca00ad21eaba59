"""Command-line options of a search, and the environment that they describe."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import gymnasium as gym
import tyro

from nases_env.command_line import given_preset, parse, parse_quietly, run
from nases_env.envs import NASESEnv, unwrap
from nases_env.errors import InputError, did_you_mean, one_line
from nases_env.escaping import printable
from nases_env.evaluation import ChildSettings, Limits, auto_preset, load_settings, resolve_preset, settings_overrides
from nases_env.execution import ExecutionSettings
from nases_env.json_io import require_field_types, require_type
from nases_env.registration import ENV_IDS, MO_ENV_IDS
from nases_env.search.option_checks import require_at_least, require_default
from nases_env.search.run_dir import CONFIG, is_finished, read_config
from nases_env.search.time_budget import UNLIMITED_BUDGET, Duration
from nases_env.search_spaces import SearchSpace
from nases_env.user_modules import import_recorded_module, import_user_module

ENV_OPTIONS = ("preset", "data_dir", "device", "num_threads", "search_space", "embedding", "rungs", "objectives")
"""Options that are passed to the environment if they differ from their defaults."""

OUTPUT_OPTIONS = ("quiet", "log_json")
"""Options of what a command prints, which a run directory does not record."""

RESUME_OVERRIDABLE = ("budget", "time", "track", "execution", *OUTPUT_OPTIONS)
"""Options that may change when a search is resumed."""

OLD_NAMES = {
    "round_size": "ask_batch_size",
    "landscape": "landscape_seed",
    "permutation_seed": "operator_permutation_seed",
}
"""Options that were renamed, for run directories of earlier versions."""

OLD_ENV_OPTIONS = ("landscape_seed", "table", "operator_permutation_seed")
"""Options of earlier versions that are now in ``env_kwargs``."""

REMOTE_OPTIONS = {"ray": "ray_address", "slurm": "slurm_options"}
"""By executor: the option that selects other machines or what they run, which ``--resume`` does not take from a file."""

OLD_ENV_IDS = {"NASES-LookUp-v0": "NASES-Query-v0", "NASES-Analytic-v0": "NASES-Synthetic-v0"}


def _parse_rungs(texts: list[str]) -> tuple[int, ...]:
    try:
        return tuple(int(rung) for rung in texts[0].split(",")) if texts[0] else ()
    except ValueError:
        raise InputError(f"--rungs must be numbers of epochs separated by commas, such as 1,3,7, not {texts[0]}") from None


Rungs = Annotated[
    tuple[int, ...],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="EPOCHS,EPOCHS,...",
        instance_from_str=_parse_rungs,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda rungs: [",".join(map(str, rungs))],
    ),
]
"""Type of the option ``--rungs``."""

ChildOptions = tyro.conf.FlagConversionOff[tyro.conf.AvoidSubcommands[ChildSettings | None]]
"""Type of an option group for the settings of the children. None: those of the preset."""


@dataclass
class SearchArgs:
    """Options of every search."""

    uses_embedding: ClassVar[bool] = True
    """Whether the agent uses the embedding of the search space."""

    essential: ClassVar[tuple[str, ...]] = (
        "env_id",
        "budget",
        "time",
        "seed",
        "num_envs",
        "preset",
        "data_dir",
        "run_dir",
        "resume",
    )
    """Options that ``--help`` explains; ``--help-all`` explains all."""

    added: ClassVar[tuple[str, ...]] = ()
    """Options of the agent that run directories of earlier versions lack; they have their defaults."""

    env_id: str = "NASES-Digits-v0"
    """Id of the environment, such as NASES-CIFAR10-v0; MODULE:ID for one that MODULE registers."""
    env_kwargs: dict[str, str] = field(default_factory=dict)
    """Additional environment arguments as NAME VALUE pairs, such as landscape_seed 3."""
    budget: int = 30
    """Number of children to evaluate, including repeats, which are served from the cache."""
    time: Duration = None
    """Duration of the search, such as 90s, 45m or 1h30m, with the second evaluation of the finalists. A resumed search gets
    the full time again. Default: none. If it is given, the default of --budget is unlimited."""
    seed: int = 0
    """Seed of all random numbers, including the validation split."""
    num_envs: int = 1
    """Number of concurrent evaluations; in `nases search`, the default is one per CPU core, or 1 on a GPU. The agent
    receives results in the order of its proposals, so the search does not depend on timing. It depends on this number:
    with more than one, the agent proposes before it knows all results."""
    ask_batch_size: int = 1
    """Number of children that the agent proposes at a time."""
    rungs: Rungs = ()
    """Numbers of epochs after which a child can be evaluated, such as 1,3,7, which also restart the learning rate schedule
    and replace --child.num-epochs. New children are trained up to the first; the best 1 / REDUCTION_FACTOR of them continue
    to the next (asynchronous successive halving). Default: all children are trained to the end."""
    reduction_factor: int = 4
    """With --rungs: the inverse of the fraction of children that continue to the next rung."""
    num_finalists: int | None = None
    """Number of best children that are evaluated again with another seed, at the last rung; the one with the best mean
    reward at the last rung is the result. 0: the result is the child with the best reward. Default: 5, or 0 if rewards do
    not depend on a seed."""
    run_dir: Path | None = None
    """New directory for all files of the search. Default: runs/ENVIRONMENT-AGENT-seedSEED-TIME."""
    resume: Path | None = None
    """Run directory of a search to resume. Its options are used; only --budget, --time, --track, --quiet, --log-json
    and the options of the execution may change."""
    track: Literal["wandb", "mlflow", "trackio"] | None = None
    """Also send the curves to this experiment tracker, which its own environment variables configure."""
    quiet: bool = False
    """Print errors only."""
    log_json: bool = False
    """Print a JSON object for each trial, finalist and the end, in place of the progress bar and the table. A resumed search
    prints its last recorded trial again."""
    preset: str = "auto"
    """Network size and training of the children: paper, gpu, cpu, small or smoke. auto: small for an image folder with few
    images, otherwise gpu if there is a GPU, otherwise cpu."""
    data_dir: str | None = None
    """Directory with the data sets. Default: the environment variable NASES_DATA_DIR, else a directory in the user's
    cache."""
    device: str = "auto"
    """Torch device such as cpu or cuda:1. auto: the GPU if there is one."""
    num_threads: int = 1
    """Number of CPU threads per training."""
    search_space: str | None = None
    """enas_micro, enas_micro_sized, nasbench201, transnas_micro, accel, or a custom search space as MODULE:CLASS. Default:
    that of the environment."""
    objectives: str | None = None
    """The objectives of an environment with several: accuracy, which is the reward, and then one or more costs, such as
    accuracy,flops. Default: accuracy,params."""
    embedding: str | None = None
    """File with a pretrained embedding, as written by `nases pretrain`, for agents that use one. Default: the built-in
    one."""
    limits: tyro.conf.OmitArgPrefixes[Limits] = field(default_factory=Limits)
    """Limits of the children; those above one are not evaluated:"""
    execution: tyro.conf.OmitArgPrefixes[ExecutionSettings] = field(default_factory=ExecutionSettings)
    """Where and how children are evaluated; has no effect on results, except for --time-limit and --memory-limit:"""
    child: ChildOptions = None
    """Settings of the children; the defaults are those of --preset:"""

    def check(self) -> None:
        """Check the options of every search, before anything is planned or written.

        Raises:
            InputError: if one of them is out of its range, or has no effect with the others.
        """
        require_at_least(self, 1, "budget", "num_envs", "ask_batch_size", "num_threads")
        require_at_least(self, 2, "reduction_factor")
        require_at_least(self, 0, "seed")
        if not self.rungs:
            require_default(self, "without --rungs", "reduction_factor")
        if self.quiet and self.log_json:
            raise InputError("--quiet and --log-json exclude each other; omit one of them")
        if self.time is not None and not self.time > 0:
            raise InputError(f"--time must be more than 0 seconds, not {self.time}")

    def check_env(self, env: NASESEnv) -> None:
        """Check that the agent can search ``env``, before anything is planned or written.

        Raises:
            InputError: if it cannot, for example because it needs several objectives.
        """

    def inputs(self, search_space: SearchSpace) -> dict[str, str]:
        """Return digests of what the agent reads from files, by description. A resumed search must read the same.

        Args:
            search_space: the search space of the environment.

        Raises:
            InputError: if a file cannot be read, or does not fit ``search_space``.
        """
        return {}


Args = TypeVar("Args", bound=SearchArgs)


def run_search(args_type: type[Args], main: Callable[[Args], None]) -> None:
    """Parse the command line of an agent and call ``main`` with its options, as the main function of this process.

    Args:
        args_type: the options of the agent.
        main: the main function; its docstring begins the help text.
    """
    run(lambda: parse_and_search(args_type, main))


def parse_and_search(
    args_type: type[Args],
    main: Callable[[Args], None],
    *,
    options: Sequence[str] | None = None,
    program: str | None = None,
) -> None:
    """Parse the options of an agent and call ``main`` with them.

    With ``--resume`` the defaults are the options of the resumed run. If that run is finished, a message is printed instead.

    Args:
        args_type: as in ``run_search``.
        main: as in ``run_search``.
        options: the options as words; None: those of the command line.
        program: name of the program in the help text; None: that of the command line.

    Raises:
        InputError: if an option is not valid.
    """

    def read(default: Args) -> Args:
        args: Args = parse(
            args_type,
            description=main.__doc__,
            default=default,
            args=options,
            prog=program,
            essential=args_type.essential,
        )
        return args

    options = sys.argv[1:] if options is None else list(options)
    given = parse_quietly(args_type, options, args_type(child=ChildSettings()))
    name = (given_preset(options) or args_type.preset) if given is None else _resolved_preset(given)
    _, child = resolve_preset(name)
    budget = args_type.budget if given is None or given.time is None else UNLIMITED_BUDGET
    args = read(args_type(child=child, budget=budget))
    run_dir = args.resume
    if run_dir is not None:
        recorded = load_args(args_type, run_dir)
        if budget == UNLIMITED_BUDGET:
            recorded = dataclasses.replace(recorded, budget=budget)
        without = dataclasses.replace(recorded.execution, ray_address=None, slurm_options=None)
        args = read(dataclasses.replace(recorded, execution=without))
        _reject_changed_options(recorded, args)
        _require_remote_options(recorded, args)
        if is_finished(run_dir, args.budget):
            line = f"{printable(run_dir)} is finished ({recorded.budget} children); pass a larger --budget to continue"
            print(line, file=sys.stderr if args.log_json else sys.stdout)
            return
    main(args)


def _resolved_preset(args: SearchArgs) -> str:
    """Return the preset of ``args``; "auto" depends on the data set."""
    if args.preset != "auto":
        return args.preset
    module, _, env_id = args.env_id.rpartition(":")
    with contextlib.suppress(gym.error.Error, ImportError):  # raised again by ``make_env``
        if module:
            import_user_module(module)
        return auto_preset(gym.spec(env_id).kwargs.get("dataset"), args.data_dir)
    return auto_preset()


def _reject_changed_options(recorded: SearchArgs, args: SearchArgs) -> None:
    given = _flatten(args)
    for name, value in _flatten(recorded).items():
        if name.split(".")[0] not in RESUME_OVERRIDABLE and given[name] != value:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option} is {value} in {args.resume} and cannot be changed with --resume; omit it")


def _require_remote_options(recorded: SearchArgs, args: SearchArgs) -> None:
    name = REMOTE_OPTIONS.get(args.execution.executor)
    if name is not None and getattr(args.execution, name) is None:
        before = getattr(recorded.execution, name)
        if before is not None:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option} was {before} in {args.resume}; check it and pass it again, or change --executor")


def _flatten(args: Any, prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for option in dataclasses.fields(args):
        value = getattr(args, option.name)
        name = prefix + option.name
        values |= _flatten(value, f"{name}.") if dataclasses.is_dataclass(value) else {name: value}
    return values


def make_env(args: SearchArgs) -> NASESEnv:
    """Create the environment that ``args`` describe: any registered ``NASESEnv``.

    Modules that a resumed run names are imported by ``import_recorded_module``.

    Raises:
        InputError: if there is no such environment, it has a wrapper, or it does not take an option that was given.
    """
    module, _, env_id = args.env_id.rpartition(":")
    if args.resume is not None:
        space_module, colon, _ = (args.search_space or "").partition(":")
        for name in (module, space_module if colon else ""):
            if name:
                import_recorded_module(name, args.resume)
    try:
        if module:
            import_user_module(module)
        spec = gym.spec(env_id)
        entry_point: Any = spec.entry_point
        env_class: Any = entry_point if callable(entry_point) else gym.envs.registration.load_env_creator(entry_point)
    except (gym.error.Error, ImportError) as error:
        raise InputError(
            f"unknown environment {args.env_id!r} ({one_line(error)}); known: {', '.join((*ENV_IDS, *MO_ENV_IDS))}, or "
            "MODULE:ID for one that MODULE registers"
        ) from None
    if not (isinstance(env_class, type) and issubclass(env_class, NASESEnv)):
        raise InputError(f"{args.env_id} is not an environment for architecture search: it must be a NASESEnv")
    parameters = _parameters(env_class)
    given = {name: getattr(args, name) for name in ENV_OPTIONS if getattr(args, name) != getattr(SearchArgs, name)}
    given |= {name: limit for name, limit in vars(args.limits).items() if limit is not None}
    child = settings_overrides(args.child, resolve_preset(_resolved_preset(args))[1])
    rejected = [name for name in given if name not in parameters]
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        rejected += [f"child.{name}" for name in child]
    if rejected:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in rejected)
        raise InputError(f"{args.env_id} does not take {options}; omit it, or choose a different environment with --env-id")
    kwargs = _convert_env_kwargs(args, env_class, spec.kwargs)
    if "split_seed" in parameters:
        kwargs["split_seed"] = args.seed
    # The environment checker would load the embedding, which not every agent needs.
    return unwrap(gym.make(spec, disable_env_checker=True, **given, **child, **kwargs))


def _convert_env_kwargs(args: SearchArgs, env_class: type[NASESEnv], set_by_id: dict[str, Any]) -> dict[str, Any]:
    """Check ``args.env_kwargs`` against the signature of ``env_class`` and convert the values to the annotated types."""
    set_elsewhere = ("split_seed", "evaluator", "execution", "render_mode", "info_text")
    reserved = {*ENV_OPTIONS, *vars(args.limits), *set_by_id, *set_elsewhere}
    known = [
        name
        for name, parameter in _parameters(env_class).items()
        if name not in reserved and parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    hints = _hints(env_class) if args.env_kwargs else {}
    kwargs = {}
    for name, value in args.env_kwargs.items():
        if name not in known:
            raise InputError(
                f"{args.env_id} does not take --env-kwargs {name}{did_you_mean(name, known)}; "
                f"known: {', '.join(known) or 'none'}"
            )
        kwargs[name] = _convert(name, value, hints.get(name, Any))
    return kwargs


def _constructors(env_class: type[NASESEnv]) -> Iterator[Any]:
    """Yield the constructor of ``env_class``, and those of base classes to which it passes ``**options``."""
    for each in env_class.__mro__:
        if "__init__" in vars(each):
            constructor = vars(each)["__init__"]
            yield constructor
            if not any(one.kind is one.VAR_KEYWORD for one in inspect.signature(constructor).parameters.values()):
                return


def _parameters(env_class: type[NASESEnv]) -> dict[str, inspect.Parameter]:
    """Return the parameters of the constructor of ``env_class`` by name."""
    found: dict[str, inspect.Parameter] = {}
    for constructor in _constructors(env_class):
        _, *parameters = inspect.signature(constructor).parameters.values()  # without self
        for parameter in parameters:
            found.setdefault(parameter.name, parameter)
    return found


def _hints(env_class: type[NASESEnv]) -> dict[str, Any]:
    """Return the types of the parameters of the constructor of ``env_class`` by name."""
    hints: dict[str, Any] = {}
    for constructor in _constructors(env_class):
        hints = {**typing.get_type_hints(constructor), **hints}
    return hints


def _convert(name: str, value: Any, hint: Any) -> Any:
    """Convert a value from the command line to the type ``hint``."""
    literal = value
    if isinstance(value, str):
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):  # the last two: nested too deeply
            literal = ast.literal_eval(value)
    for candidate in (literal, value):
        with contextlib.suppress(ValueError):
            require_type(name, candidate, hint, allow_infinity=True)
            return candidate
    raise InputError(f"--env-kwargs {name} must be {inspect.formatannotation(hint)}, not {value!r}")


def load_args(args_type: type[Args], path: Path) -> Args:
    """Read the options of the search in the run directory ``path``, to resume it.

    Args:
        args_type: the options of the agent; ``SearchArgs`` reads the common options of any agent.
        path: the run directory.

    Raises:
        InputError: if it is not a run directory, or belongs to another agent.
    """
    config = read_config(path)
    values = _rename_old(config["arguments"])
    names = {option.name for option in dataclasses.fields(args_type)} - {"run_dir", "resume"}
    has_children = config["configuration"].get("evaluator") == "training"
    if args_type is SearchArgs:
        values = {name: value for name, value in values.items() if name in names}
        if not has_children:
            values["preset"] = SearchArgs.preset  # in earlier versions, it could be a preset of the agent
    values = {**{name: getattr(args_type, name) for name in args_type.added}, **values}
    if set(values) != names:
        raise InputError(
            f"{path} is a run of {config.get('agent')} with the options of a different agent or version of NASES; resume it "
            f"with that agent and version: {config.get('command')}"
        )
    if not args_type.uses_embedding:
        values["embedding"] = None  # earlier versions required one for custom search spaces
    try:
        require_type("preset", values["preset"], str)
        require_type("child", values["child"], dict[str, Any] | None)
        _, child = resolve_preset(values["preset"])
        values["limits"] = _load_limits(values)
        if has_children:
            described = config["configuration"].get("settings")
            if isinstance(described, dict) and "reward_signal" not in described:  # the preset may have changed since
                child = dataclasses.replace(child, reward_signal="valid_accuracy", flops_exponent=0.0)
            child = load_settings(values["child"], child)
        values["child"] = child
        require_field_types(ExecutionSettings, values["execution"], allow_infinity=True)
        values["execution"] = ExecutionSettings(**values["execution"])
        values |= {name: tuple(values[name]) for name in names if isinstance(getattr(args_type, name, None), tuple)}
        require_field_types(args_type, values, allow_infinity=True)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path / CONFIG} is damaged ({one_line(error)}); restore it, or start a new search") from None
    return args_type(**{**values, "run_dir": path, "resume": path})


def _load_limits(values: Mapping[str, Any]) -> Limits:
    """Return the limits of a search; in earlier versions, there was one, among the settings of the children."""
    limits = values["limits"]
    require_type("limits", limits, dict[str, Any])
    child = values["child"] or {}
    if isinstance(child.get("max_params"), int):
        limits = {**limits, "max_params": child["max_params"]}
    require_field_types(Limits, limits)
    return Limits(**limits)


def _rename_old(arguments: dict[str, Any]) -> dict[str, Any]:
    """Convert the ``arguments`` of a run directory of an earlier version to the current options."""
    values = {OLD_NAMES.get(name, name): value for name, value in arguments.items()}
    for name in ("rungs", "reduction_factor", "num_finalists", "time", "track", "objectives", *OUTPUT_OPTIONS):
        values.setdefault(name, getattr(SearchArgs, name))
    values.setdefault("limits", {})
    if "env_kwargs" not in values:
        moved = {name: values.pop(name, None) for name in OLD_ENV_OPTIONS}
        values["env_kwargs"] = {name: value for name, value in moved.items() if value is not None}
    values["env_id"] = OLD_ENV_IDS.get(values["env_id"], values["env_id"])
    return values
