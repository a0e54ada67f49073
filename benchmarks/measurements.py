"""How the records of the documentation's tables are measured again: commands, minutes, folders of data."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import common
from benchmarks.common import Record, record_file
from semipix.atomic import write_text
from semipix.errors import SemipixError
from semipix.launch import runner

DATA = {
    "PORTRAIT": "portrait photographs (EG1800) with masks, as a data folder",
    "CAMVID": "CamVid, as a data folder",
    "POLYU": "PolyU's noisy photographs, as the setting polyu reads them",
    "LOL": "the LOL data set",
    "MATTING": "the training images of alphamatting.com",
    "DARK": "made by benchmarks.accuracy.make_data dark PORTRAIT DARK",
    "MATTES": "made by benchmarks.accuracy.make_data mattes PORTRAIT MATTES",
    "NOISY": "made by benchmarks.accuracy.make_data noisy PORTRAIT NOISY",
    "EARLIER": "the source tree (src) of an earlier version, for comparison",
}
"""Folders that commands need, given by `--data NAME=FOLDER`."""

FINISHED = "finished.json"
"""File in the folder of new records that lists the finished commands."""


class Measurement(NamedTuple):
    """How the records of a file are measured.

    Attributes:
        commands: modules below `benchmarks` with their arguments, after environment variables. JSON is the file of
            records, RUNS the folder that gets run folders, TRAINED the same folder where runs have to be there already,
            and names of `DATA` are their folders.
        minutes: about how long all take on two cores, where the records do not say it.
        why_not: why they cannot be measured again, where there is no command.
    """

    commands: tuple[str, ...] = ()
    minutes: float | None = None
    why_not: str = ""


def _compare(setting: str, data: str, *arguments: str) -> str:
    return " ".join([f"accuracy.compare {setting} --data {data}", *arguments, "--runs RUNS --json JSON"])


FOUR = "supervised_short supervised mean_teacher gct all_labels"
"""Variants of the first comparisons."""

ALL = (
    "supervised_short supervised gct gct_strong unimatch fixmatch s4l cutmix cps advssl cct flaw_mean_teacher "
    "mean_teacher_short_memory gct_half_scale all_labels"
)
"""Variants of the table of results."""

OF_REGRESSION = "supervised mean_teacher s4l advssl"

DEFAULT = "gct_strong_cues"
"""The variant with the recommended setting."""

SLOWLY = "method.decay=0.99"
"""Averages of trainings of 1,000 steps forget in 100 steps."""


def _changed(variant: str, *changes: str) -> str:
    """A variant of a long training, as a further run of `accuracy.compare`."""
    return f'"{variant}:{";".join((f"variant={variant}", SLOWLY, *changes))}"'


def _gate(name: str, *changes: str) -> str:
    """The recommended setting with another gate, as a further run of `accuracy.compare`."""
    return f'"gate_{name}:{";".join((f"variant={DEFAULT}", *changes))}"'


def _gates(*changes: str) -> str:
    """The gates that every setting has."""
    agreed = ("method.gate=agreed", "method.confidence=0", "method.flaw_threshold=0.1")
    return " ".join(
        (
            _gate("nothing", *changes, "method.gate=open", "method.confidence=0"),
            _gate("confidence", *changes, "method.gate=open"),
            _gate("disagreement", *changes, *agreed),
        )
    )


MEASUREMENTS: dict[str, Measurement] = {
    "portrait": Measurement(
        (
            _compare(
                "portrait",
                "PORTRAIT",
                f"--labels 8 --seeds 0 1 2 --variants {ALL} gct_cues mean_teacher gct_strong_all_channels",
                "gct_strong_by_flaw_alone",
            ),
            _compare("portrait", "PORTRAIT", "--labels 8 --seeds 0 --variants s4l_rotated_labels_alone"),
            _compare("portrait", "PORTRAIT", f"--labels 16 --variants {FOUR}"),
            _compare("portrait", "PORTRAIT", "--labels 16 --seeds 2 --variants supervised"),
            _compare("portrait", "PORTRAIT", f"--labels 32 --seeds 0 1 2 --variants {ALL} gct_cues mean_teacher"),
            _compare("portrait", "PORTRAIT", "--labels 32 --variants gct_strong_all_channels"),
        )
    ),
    "camvid": Measurement((_compare("camvid", "CAMVID", f"--variants {FOUR}"),)),
    "camvid_long": Measurement(
        (
            _compare("camvid_long", "CAMVID", f"--variants {ALL}"),
            _compare("camvid_long", "CAMVID", "--seeds 0 --variants gct_strong_6_of_8 supervised_half_batch"),
        )
    ),
    "camvid_ablation": Measurement(
        (_compare("camvid_ablation", "CAMVID", "--seeds 0", "--ablation constraints threshold rampup"),)
    ),
    "polyu": Measurement((_compare("polyu", "POLYU", f"--variants {OF_REGRESSION} gct_half_scale all_labels"),)),
    "lol": Measurement((_compare("lol", "LOL", f"--variants {OF_REGRESSION} gct_half_scale all_labels"),)),
    "matting": Measurement((_compare("matting", "MATTING", f"--variants {OF_REGRESSION} gct_half_scale_3_of_4"),)),
    "headroom": Measurement(
        tuple(
            _compare(setting, setting.upper(), "--variants supervised all_labels --seeds 0 1 2")
            for setting in ("dark", "mattes", "noisy")
        )
    ),
    "portrait_diagnosis": Measurement(
        (
            _compare(
                "portrait",
                "PORTRAIT",
                "--labels 8 --variants gct_paper_weights gct_no_exchange gct mean_teacher_6_of_8 supervised",
            ),
        )
    ),
    "error_maps": Measurement(
        (
            _compare(
                "portrait",
                "PORTRAIT",
                "--labels 8 --seeds 0 1 2 --variants gct_strong_cues gct_strong unimatch supervised",
            ),
            _compare(
                "camvid_1000",
                "CAMVID",
                "--seeds 0 1 2 --variants supervised",
                f"--extra {_changed(DEFAULT)} {_changed('unimatch')} {_changed('gct_strong')}",
            ),
            _compare("camvid_1000", "CAMVID", "--labels 8 --seeds 0 1 2 --variants", f"--extra {_changed(DEFAULT)}"),
            _compare("portrait", "PORTRAIT", "--labels 16 32 --seeds 0 1 2 --variants gct_strong_cues"),
            _compare(
                "portrait",
                "PORTRAIT",
                "--labels 8 --seeds 0 1 2 --variants",
                '--extra "corrupted:variant=gct_strong_cues;method.corrupted=0.25"',
                '"withhold:variant=gct_strong_cues;method.withhold=0.25"',
            ),
            _compare(
                "dark",
                "DARK",
                "--seeds 0 1 2 --variants supervised all_labels",
                '--extra "gct_strong_cues:variant=gct_strong_cues;method.feature_dropout=0"',
                '"same_colours:variant=gct_strong_cues;method.feature_dropout=0;data.strong_permute=0;data.strong_mask=0.3"',
                '"unimatch:variant=unimatch;method.complementary_dropout=false"',
            ),
            _compare(
                "noisy",
                "NOISY",
                "--seeds 0 1 2 3 4 --variants supervised all_labels",
                '--extra "gct_strong_cues:variant=gct_strong_cues;method.feature_dropout=0"',
                '"unimatch:variant=unimatch;method.complementary_dropout=false"',
            ),
            _compare(
                "mattes",
                "MATTES",
                "--seeds 0 1 2 --variants supervised all_labels gct_strong_cues gct_strong unimatch mean_teacher",
                "gct_half_scale_3_of_4",
                '--extra "gct_cues_3_of_4:variant=gct_half_scale_3_of_4;method.detector=cues;method.detector_scale=1"',
            ),
        )
    ),
    "gates": Measurement(
        (
            _compare(
                "portrait",
                "PORTRAIT",
                "--labels 8 --seeds 0 1 2 --variants gct_strong_features",
                f"--extra {_gates()} {_gate('label_accuracy', 'method.label_accuracy=0.95')}",
                _gate("probability", "method.confidence=0", "method.flaw_threshold=0.05"),
            ),
            _compare(
                "portrait",
                "PORTRAIT",
                "--labels 16 --seeds 0 1 2 --variants gct_strong gct_strong_features",
                f"--extra {_gates()} {_gate('label_accuracy', 'method.label_accuracy=0.95')}",
                _gate("probability", "method.confidence=0", "method.flaw_threshold=0.05"),
            ),
            _compare(
                "portrait",
                "PORTRAIT",
                "--labels 32 --seeds 0 1 2 --variants gct_strong_features",
                f"--extra {_gates()} {_gate('label_accuracy', 'method.label_accuracy=0.97')}",
                _gate("probability", "method.confidence=0", "method.flaw_threshold=0.05"),
            ),
            _compare(
                "camvid_1000",
                "CAMVID",
                "--seeds 0 1 2 --variants",
                f"--extra {_gates(SLOWLY)} {_gate('label_accuracy', SLOWLY, 'method.label_accuracy=0.97')}",
            ),
            _compare(
                "camvid_1000",
                "CAMVID",
                "--labels 8 --seeds 0 --variants",
                f"--extra {_gates(SLOWLY)} {_changed('gct_strong')}",
            ),
            _compare(
                "camvid_1000",
                "CAMVID",
                f"--labels 4 8 --seeds 0 --variants --extra {_changed('gct_strong_features')}",
                _gate("probability", SLOWLY, "method.confidence=0", "method.flaw_threshold=0.05"),
            ),
        )
    ),
    "camvid_1000": Measurement(
        (
            _compare(
                "camvid_1000", "CAMVID", "--seeds 0 1 2 --variants gct gct_cues mean_teacher s4l advssl all_labels"
            ),
            _compare(
                "camvid_1000",
                "CAMVID",
                f"--labels 8 --seeds 0 1 2 --variants supervised --extra {_changed('unimatch')}",
            ),
        )
    ),
    "light_decoder": Measurement(
        (
            _compare(
                "portrait",
                "PORTRAIT",
                "--labels 8 --seeds 0 1 2 --variants",
                '--extra "supervised_light:variant=supervised;model.decoder_channels=[128,64,48,32,16]"',
                '"gct_strong_light:variant=gct_strong_cues;model.decoder_channels=[128,64,48,32,16]"',
            ),
        )
    ),
    "rare_classes": Measurement(
        (
            _compare(
                "camvid_1000",
                "CAMVID",
                "--seeds 0 1 2 --variants",
                '--extra "rare_share:variant=supervised;data.rare_share=0.333"',
                '"balanced:variant=supervised;task.class_weights=balanced"',
                '"rare_share_balanced:variant=supervised;data.rare_share=0.333;task.class_weights=balanced"',
                f'"strong_rare_share:variant={DEFAULT};{SLOWLY};data.rare_share=0.333"',
            ),
            _compare(
                "camvid_1000",
                "CAMVID",
                "--labels 8 --seeds 0 1 2 --variants",
                '--extra "supervised_sqrt_balanced:variant=supervised;task.class_weights=sqrt_balanced"',
                f'"strong_sqrt_balanced:variant={DEFAULT};{SLOWLY};task.class_weights=sqrt_balanced"',
                '"supervised_as_default:variant=supervised;task.class_weights=sqrt_balanced;data.rare_share=null"',
                f'"strong_as_default:variant={DEFAULT};{SLOWLY};task.class_weights=sqrt_balanced;data.rare_share=null"',
            ),
            _compare(
                "portrait",
                "PORTRAIT",
                "--labels 8 --seeds 0 1 2 --variants",
                '--extra "supervised_sqrt_balanced:variant=supervised;task.class_weights=sqrt_balanced"',
                f'"strong_sqrt_balanced:variant={DEFAULT};task.class_weights=sqrt_balanced"',
            ),
            _compare(
                "camvid_1000",
                "CAMVID",
                "--labels 8 --seeds 0 --variants supervised_half_batch",
                f'--extra "strong_balanced:variant={DEFAULT};{SLOWLY};task.class_weights=balanced"',
                f'"strong_6_of_8:variant={DEFAULT};{SLOWLY};data.labeled_per_batch=6"',
                f'"strong_per_class:variant={DEFAULT};{SLOWLY};method.per_class=true"',
                f'"strong_default_per_class:variant={DEFAULT};{SLOWLY};method.per_class=true;'
                'task.class_weights=sqrt_balanced;data.rare_share=0.3333"',
            ),
        )
    ),
    "bf16": Measurement(
        tuple(
            f"accuracy.bf16 {what} --runs RUNS/bf16 --json JSON"
            for what in (
                "camvid_long --data CAMVID",
                "camvid_long --data CAMVID --variants supervised --seeds 2 3 4 5",
                "camvid_long --data CAMVID --variants supervised --seeds 0 1 2 3 4 5 --part none",
                "portrait --data PORTRAIT --labels 8 --variants gct supervised",
            )
        )
    ),
    "earlier_statistics": Measurement(
        why_not="trained and measured before the input statistics were corrected; kept for comparisons with such runs"
    ),
    "input_statistics": Measurement(
        (
            "accuracy.input_statistics TRAINED/portrait/8-gct-? TRAINED/portrait/8-gct_strong-? "
            "TRAINED/portrait/8-supervised-? TRAINED/portrait/8-unimatch-? --json JSON",
        ),
        minutes=10,
    ),
    "pick": Measurement(
        (
            "accuracy.pick coverage camvid --data CAMVID --labels 4 12 32 --json JSON",
            "accuracy.pick coverage portrait --data PORTRAIT --labels 4 8 32 --json JSON",
            "accuracy.pick train portrait --data PORTRAIT --labels 8 --runs RUNS --json JSON",
            "accuracy.pick train camvid --data CAMVID --labels 12 --strategies random kcentre-all kmeans-all "
            "--runs RUNS --json JSON",
        )
    ),
    "choices": Measurement(
        tuple(
            f"accuracy.choices {setting} --data {data} --seeds 0 --runs RUNS/choices --json JSON"
            for setting, data in (
                ("portrait", "PORTRAIT"),
                ("camvid_long", "CAMVID"),
                ("polyu", "POLYU"),
                ("lol", "LOL"),
                ("matting", "MATTING"),
                ("dark", "DARK"),
                ("mattes", "MATTES"),
                ("noisy", "NOISY"),
            )
        )
    ),
    "paper_tables": Measurement(why_not="its sweeps are commands of semipix train; docs/paper-tables.md names them"),
    "few_validation": Measurement(
        (
            "accuracy.few_validation TRAINED/portrait/8-gct_strong_cues-? TRAINED/portrait/8-supervised-? "
            "TRAINED/portrait/8-unimatch-? TRAINED/camvid_1000/4-supervised-? --json JSON",
        ),
        minutes=15,
    ),
    "tile_seams": Measurement(
        ("accuracy.tile_seams TRAINED/portrait/all-all_labels-0 PORTRAIT/images/test --json JSON",), minutes=5
    ),
    "step": Measurement(
        (
            "speed.step --case unet --methods all --compile --json JSON",
            "speed.step --case unet --size 96 --methods all --no-memory --json JSON",
            "speed.step --case dhdn --methods all --json JSON",
            "speed.step --case deeplab_v2 --methods all --json JSON",
        ),
        minutes=80,
    ),
    "loading": Measurement(
        tuple(f"speed.loading {case} --json JSON" for case in ("speed", "names", "shards")), minutes=15
    ),
    "paper_steps": Measurement(("speed.paper_steps --checkpointing --repeats 1 --threads 1 --json JSON",), minutes=40),
    "inference": Measurement(
        tuple(f"OMP_NUM_THREADS={threads} speed.inference --json JSON" for threads in (1, 2)), minutes=20
    ),
    "large_images": Measurement(
        (
            "OMP_NUM_THREADS=2 speed.large_images --tree before=EARLIER --json JSON",
            "OMP_NUM_THREADS=1 speed.large_images --megapixels 400 --methods supervised --classes 11 --tile 512 "
            "--overlap 64 --keys model.decoder_channels=[16,8,8,8,8] --json JSON",
        )
    ),
    "export": Measurement(("speed.export_models --json JSON",), minutes=60),
    "startup": Measurement(("speed.startup --json JSON",), minutes=2),
    "allocator": Measurement(("OMP_NUM_THREADS=1 speed.allocator --json JSON",), minutes=10),
    "scaling": Measurement(("speed.scaling --json JSON",), minutes=10),
    "reliability": Measurement(("reliability --json JSON",)),
}
"""How the records of each table are measured, by the name of their file."""


def shown_command(command: str) -> str:
    """A command of a `Measurement` as a user types it."""
    words = command.split(" ")
    first = next(place for place, word in enumerate(words) if "=" not in word)
    return " ".join([*words[:first], f"python -m benchmarks.{words[first]}", *words[first + 1 :]])


def duration_of(name: str) -> str:
    """About how long the commands of a file of records take; from its own seconds where it has them."""
    minutes = MEASUREMENTS[name].minutes
    if minutes is None:
        path = record_file(name)
        seconds = _seconds(json.loads(path.read_text())) if path.exists() else []
        minutes = sum(seconds) / 60 if seconds else None
    return (
        "no record of how long it takes on two cores"
        if minutes is None
        else f"about {minutes:.0f} minutes on two cores"
    )


def _seconds(content: list[Record] | dict[str, Any]) -> list[float]:
    """What was spent on each record or section of a file; half of a training, since two run at a time.

    Nothing where a training ran on a GPU, which says little of two cores.
    """
    if isinstance(content, dict) and "sections" in content:
        return [section["seconds"] for section in content["sections"].values()]
    records: list[Record] = content if isinstance(content, list) else content["records"]
    if any("trained" in record and _device_of(record, content) != "CPU" for record in records):
        return []
    trained = [record["trained"]["seconds"] / 2 for record in records if "seconds" in record.get("trained", {})]
    return trained or [record["seconds"] for record in records if isinstance(record.get("seconds"), float)]


def _device_of(record: Record, content: list[Record] | dict[str, Any]) -> str:
    """The device that a record, or else its file, names."""
    device = record.get("device") or (content["device"] if isinstance(content, dict) else {"kind": "CPU"})
    return str(device["kind"])


def arguments_of(command: str, name: str, out: Path, data: Mapping[str, Path]) -> tuple[dict[str, str], list[str]]:
    """Environment variables of a command, and its module with the arguments for this machine.

    Args:
        command: one of a `Measurement`.
        name: of the file of records.
        out: folder of the records and runs.
        data: folders by their names in `DATA`.

    Raises:
        SemipixError: a folder was not given, or runs that the command measures are not there.
    """
    words = shlex.split(command)
    variables: dict[str, str] = {}
    found: list[str] = []
    while "=" in words[0]:
        key, _, variables[key] = words.pop(0).partition("=")
    for word in words:
        key, equals, value = word.rpartition("=") if word.rpartition("=")[2] in DATA else ("", "", word)
        first, slash, rest = value.partition("/")
        if first in DATA and first not in data:
            raise SemipixError(f"{name}: needs --data {first}=FOLDER ({DATA[first]})")
        if first == "TRAINED":
            runs = sorted((out / "runs").glob(rest))
            if not runs:
                raise SemipixError(
                    f"{name}: no run {out / 'runs' / rest} found; measure {Path(rest).parent} in {out} first"
                )
            found += map(str, runs)
            continue
        places = {"JSON": out / f"{name}.json", "RUNS": out / "runs", **data}
        found.append(f"{key}{equals}{places[first]}{slash}{rest}" if first in places else word)
    return variables, found


def train(names: Sequence[str], out: Path, data: Mapping[str, Path]) -> None:
    """Run the commands of some files of records, each once; the records come to `out`.

    Raises:
        SemipixError: a name is unknown or cannot be measured again, a folder is missing, or a command failed.
    """
    commands: list[tuple[str, str]] = []
    for name in names:
        if name not in MEASUREMENTS:
            raise SemipixError(f"--train {name}: unknown; known: {', '.join(MEASUREMENTS)}")
        if why_not := MEASUREMENTS[name].why_not:
            raise SemipixError(f"--train {name}: cannot be measured again: {why_not}")
        commands += [(name, command) for command in MEASUREMENTS[name].commands]
        for command in MEASUREMENTS[name].commands:
            if "TRAINED" not in command:
                arguments_of(command, name, out, data)  # before hours of training
    out.mkdir(parents=True, exist_ok=True)
    path = out / FINISHED
    finished: list[str] = json.loads(path.read_text()) if path.exists() else []
    for name, command in commands:
        variables, (module, *arguments) = arguments_of(command, name, out, data)
        line = f"{name}: python -m benchmarks.{module} {shlex.join(arguments)}"
        if line in finished:
            print(f"finished already: {line}", flush=True)
            continue
        print(line, flush=True)
        words = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
        with runner.started(words, cwd=common.ROOT, env=runner.surroundings(**variables)) as process:
            code = process.wait()
        if code:
            raise SemipixError(f"{name}: exit status {code} of benchmarks.{module}; the same command continues")
        finished.append(line)
        write_text(path, json.dumps(finished, indent=1) + "\n")
