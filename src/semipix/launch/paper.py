"""The paper's hyper-parameters (Appendix C) and which of them a command uses."""

from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

import yaml

from semipix.errors import SemipixError


def paper_table(task: str) -> dict[str, dict[str, Any]]:
    """Appendix C's hyper-parameters of each method for one task."""
    tables: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(
        files("semipix.conf").joinpath("paper.yaml").read_text("utf-8")
    )
    return tables[task]


def with_paper_row(
    config: Mapping[str, Any], experiment: str | None, method: str, overrides: Iterable[str]
) -> dict[str, Any]:
    """The configuration with the chosen method's row of `paper_table`. Values of the command line have precedence.

    Args:
        config: a resolved configuration.
        experiment: the chosen experiment; any but `paper/TASK` changes nothing.
        method: name of the chosen method.
        overrides: what the user gave, as KEY=VALUE.

    Raises:
        SemipixError: the paper's table does not list the method.
    """
    group, _, task = (experiment or "").partition("/")
    if group != "paper":
        return dict(config)
    table = paper_table(task)
    if method not in table:
        raise SemipixError(
            f"method={method}: the paper's table has no such row, it lists {', '.join(table)}; choose one of them, or "
            f"leave experiment={experiment} out"
        )
    given = {override.partition("=")[0].lstrip("+") for override in overrides}
    row = {key: value for key, value in table[method].items() if f"method.{key}" not in given}
    return {**config, "method": {**config["method"], **row}}
