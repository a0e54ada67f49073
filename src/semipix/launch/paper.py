"""What the paper sets (Appendix C and Section 4), and which of it a command uses."""

from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

import yaml

from semipix.errors import SemipixError

Table = dict[str, dict[str, Any]]
"""Values of keys by the name of an option."""

SMALL = "_small"
"""End of the name of an experiment that is the paper's on small data."""


def paper_table(task: str, group: str = "method") -> Table:
    """What the paper sets for one task.

    Args:
        task: of the paper's four.
        group: `method` for Appendix C's hyper-parameters of each method, or `model` or `data`; `small` for those that
            are others on small data.

    Returns:
        Values by option and key; empty if the paper sets nothing in this group.
    """
    return _tables()[task].get(group, {})


def _tables() -> dict[str, dict[str, Table]]:
    found: dict[str, dict[str, Table]] = yaml.safe_load(files("semipix.conf").joinpath("paper.yaml").read_text("utf-8"))
    return found


def paper_task(experiment: str) -> str | None:
    """The task of an experiment that trains as the paper does; None of any other, such as a grid of such runs."""
    folder, _, name = experiment.partition("/")
    task = name.removesuffix(SMALL)
    return task if folder == "paper" and task in _tables() else None


def with_paper_values(
    config: Mapping[str, Any], choices: Mapping[str, str | None], overrides: Iterable[str]
) -> dict[str, Any]:
    """The configuration with the paper's values for the chosen options. Values of the command line have precedence.

    Args:
        config: a resolved configuration.
        choices: the chosen option of each group, as Hydra names the groups; an `experiment` other than `paper/TASK` and
            `paper/TASK_small` changes nothing.
        overrides: what the user gave, as KEY=VALUE.

    Raises:
        SemipixError: the paper's table does not list the method.
    """
    experiment = choices.get("experiment") or ""
    task = paper_task(experiment)
    if task is None:
        return dict(config)
    small = experiment.endswith(SMALL)
    method, table = choices["method"], paper_table(task)
    if small:  # the models and data are others than the paper's, and so are the lengths
        table = {name: {**table.get(name, {}), **changed} for name, changed in paper_table(task, "small").items()}
    if method not in table:
        raise SemipixError(
            f"method={method}: the paper's table has no such row, it lists {', '.join(table)}; choose one of them, or "
            f"leave experiment={experiment} out"
        )
    given = {override.partition("=")[0].lstrip("+") for override in overrides}
    rows = {"method": table[method]}
    if not small:
        rows |= {
            "model": paper_table(task, "model").get(choices.get("model") or "", {}),
            "second_model": paper_table(task, "model").get(choices.get("model@second_model") or "", {}),
            "data": paper_table(task, "data").get(choices.get("data") or "", {}),
        }
    changed = dict(config)
    for group, row in rows.items():
        another = group != "method" and f"{group}._target_" in given  # its class may not have these keys
        if row and config.get(group) is not None and not another:
            kept = {key: value for key, value in row.items() if f"{group}.{key}" not in given}
            changed[group] = {**config[group], **kept}
    return changed
