"""The search space of `semipix train experiment=search`: parse it in Hydra's grammar, and draw values from it."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep
from hydra.errors import HydraException

from semipix.errors import SemipixError

FORMS = "choice(a,b), interval(0.1,0.9), int(interval(1,9)), range(0,10,2) or tag(log,interval(1e-5,1e-2))"
"""The forms that a parameter may have, for messages."""

LOG = "log"
"""Tag of a parameter that is drawn on a logarithmic scale, as in Hydra's sweeper for Optuna."""


@dataclass(frozen=True)
class Choice:
    """One of several values, each as the text of an override."""

    values: tuple[str, ...]


@dataclass(frozen=True)
class Interval:
    """A number.

    Attributes:
        low, high: smallest and largest value.
        whole: whether it is a whole number.
        log: whether it is drawn on a logarithmic scale.
        step: distance of the values from `low` on; None for all numbers.
    """

    low: float
    high: float
    whole: bool = False
    log: bool = False
    step: float | None = None


Parameter = Choice | Interval

Draw = Callable[[str, Parameter], Any]
"""Draws the value of a parameter, given a name that is unique in the space."""


@dataclass(frozen=True)
class Space:
    """The parameters of a search.

    Attributes:
        always: parameters by key.
        when: for the value of a choice, such as a method's name, the parameters that only trials with this value have.
        given: the text of each parameter by its key in the configuration, from which a study knows its space.
    """

    always: Mapping[str, Parameter]
    when: Mapping[str, Mapping[str, Parameter]]
    given: Mapping[str, str]

    @classmethod
    def parse(cls, space: Any, when: Any = None) -> Self:
        """Parse the space.

        Args:
            space: the text of each parameter in Hydra's grammar (`FORMS`), or a list of values, by its key; mappings
                may be nested.
            when: such mappings by the value of a choice.

        Raises:
            SemipixError: a parameter cannot be read, there is none, or no choice has a value of `when`.
        """
        texts = {f"search.space.{key}": text for key, text in _flat("search.space", space or {}).items()}
        always = {key.removeprefix("search.space."): parse_parameter(key, text) for key, text in texts.items()}
        values = [value for each in _named(always).values() for value in each.values]
        branches: dict[str, dict[str, Parameter]] = {}
        for option, parameters in _mapping("search.when", when or {}).items():
            if option not in values:
                known = ", ".join(values) or "there is none"
                raise SemipixError(
                    f"search.when.{option}: no such value of a choice in search.space, which are: {known}; expected "
                    "e.g. search.space.method=choice(gct,unimatch) and search.when.unimatch.method.KEY=..."
                )
            before = f"search.when.{option}"
            for key, text in _flat(before, parameters).items():
                if key in always:
                    raise SemipixError(f"{before}.{key}: {key} is in search.space too; remove one of the two")
                branches.setdefault(option, {})[key] = parse_parameter(f"{before}.{key}", text)
                texts[f"{before}.{key}"] = text
        if not always:
            raise SemipixError(f"search.space: no parameter to search; give search.space.KEY=..., with {FORMS}")
        return cls(always, branches, texts)

    def draw(self, draw: Draw) -> list[str]:
        """Overrides of one trial: a value of each parameter, and of those that its choices bring."""
        found = {key: draw(key, parameter) for key, parameter in self.always.items()}
        chosen = {found[key] for key in _named(self.always)}
        for option, parameters in self.when.items():
            if option in chosen:
                found |= {key: draw(f"{option}/{key}", parameter) for key, parameter in parameters.items()}
        return [f"{key}={value if isinstance(value, str) else repr(value)}" for key, value in found.items()]

    def examples(self) -> Iterator[list[str]]:
        """Overrides of trials that together have each value of the choices and each other parameter once."""
        most = max(len(each.values) if isinstance(each, Choice) else 1 for each in self.always.values())
        for number in range(most):

            def draw(_: str, parameter: Parameter, number: int = number) -> str | float:
                if isinstance(parameter, Choice):
                    return parameter.values[number % len(parameter.values)]
                return int(parameter.low) if parameter.whole else parameter.low

            yield self.draw(draw)


def _named(parameters: Mapping[str, Parameter]) -> dict[str, Choice]:
    """The choices between options of a group, such as methods."""
    return {key: each for key, each in parameters.items() if isinstance(each, Choice) and "." not in key}


def parse_parameter(key: str, text: str) -> Parameter:
    """Parse the text of one parameter.

    Args:
        key: its key in the configuration, for messages.
        text: in Hydra's grammar.

    Raises:
        SemipixError: it cannot be read, or has no value.
    """
    try:
        parsed = OverridesParser.create().parse_override(f"key={text}")
        value = parsed.value()
    except (HydraException, ValueError) as error:
        raise SemipixError(f"{key}={text}: not readable; expected {FORMS}") from error
    if isinstance(value, ChoiceSweep):
        return Choice(tuple(dict.fromkeys(map(str, parsed.sweep_string_iterator()))))
    if isinstance(value, IntervalSweep | RangeSweep):
        found = _interval(value)
        if strange := value.tags - {LOG}:
            raise SemipixError(f"{key}={text}: tag {', '.join(sorted(strange))} is not known; expected {FORMS}")
        if found is None or (found.log and found.low <= 0) or (found.log and found.step is not None):
            raise SemipixError(
                f"{key}={text}: holds no value to draw; expected the smaller number first, above 0 and without a step "
                "for a logarithmic scale"
            )
        return found
    raise SemipixError(f"{key}={text}: found one value; expected {FORMS}")


def _interval(value: Any) -> Interval | None:
    """The interval of a parsed sweep; None if it is empty."""
    log = LOG in value.tags
    if isinstance(value, IntervalSweep):
        whole = isinstance(value.start, int) and isinstance(value.end, int)
        low, high = value.start, value.end
        good = low is not None and high is not None and math.isfinite(low) and math.isfinite(high) and low < high
        return Interval(low, high, whole, log) if good else None  # type: ignore[arg-type]
    if not value.step:
        return None
    # Of decimal numbers, since with binary ones range(0,1,0.3) loses 0.9 and range(0.1,0.4,0.1) holds 0.4.
    start, stop, step = (Decimal(str(each)) for each in (value.start, value.stop, value.step))
    count = math.ceil((stop - start) / step)  # the end is left out, as in Python
    if count < 1:
        return None
    ends = start, start + (count - 1) * step
    whole = all(isinstance(each, int) for each in (value.start, value.step))
    number = int if whole else float
    return Interval(number(min(ends)), number(max(ends)), whole, log, number(abs(step)))


def _mapping(key: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SemipixError(f"{key}: {value!r} found, keys with values expected, as {key}.KEY=...")
    return {str(name): item for name, item in value.items()}


def _flat(before: str, value: Any) -> dict[str, str]:
    """The texts of parameters by dotted keys."""
    found: dict[str, str] = {}
    for name, item in _mapping(before, value).items():
        if isinstance(item, Mapping):
            found |= {f"{name}.{key}": text for key, text in _flat(f"{before}.{name}", item).items()}
        elif isinstance(item, list):
            values = [_text(each) for each in item]
            found[name] = ",".join(values) if len(values) > 1 else f"choice({','.join(values)})"
        else:
            found[name] = _text(item)
    return found


def _text(value: Any) -> str:
    """A value of a YAML file as the text of an override."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def split_keys(overrides: list[str]) -> tuple[dict[str, str], list[str]]:
    """Separate the keys of the search from the other overrides.

    Returns:
        Text by key, without `search.` before it; and the other overrides.
    """
    pattern = re.compile(r"\+{0,2}search\.([^=]+)=(.*)", re.DOTALL)
    found = {match[1]: match[2] for item in overrides if (match := pattern.fullmatch(item))}
    return found, [item for item in overrides if not pattern.fullmatch(item)]
