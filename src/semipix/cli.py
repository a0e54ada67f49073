"""The `semipix` command. Libraries are imported by the command that needs them, so that help is quick."""

import os
import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler and (
    __name__ == "__main__" or sys.argv[0].rpartition(os.sep)[2] == "semipix"
):
    # Ctrl-C before `main` has its handlers: nothing is begun yet, so that the process just ends, without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from semipix import __version__, interruption
from semipix.errors import PREFIX, SemipixError, one_line
from semipix.processes import die_with_parent, is_first, is_started_by_lightning, keep_freed_memory

TRAIN_HELP = """semipix train [GROUP=NAME ...] [KEY=VALUE ...]

Train in a new run folder, or continue one. The most common uses:

  semipix train data=folder data.root=ROOT                        a folder of images, part of it labeled
  semipix train data=folder data.root=ROOT method=supervised steps=2000 run=runs/baseline
  semipix train data=folder data.root=ROOT method=auto            short pilots choose: supervised or a better method
  semipix train resume=RUN                                        continue an interrupted run (--data ROOT: moved data)
  semipix train -m method=supervised,gct_strong seed=0,1,2 run=SWEEP   a sweep; the same command does what is missing
  semipix train task=denoising data=pairs data.root=ROOT          also task=enhancement, matting, regression
  semipix train experiment=paper/segmentation data=folder data.root=ROOT   the paper's hyper-parameters

What it writes to RUN: config.yaml, split.json, checkpoints/{best,last}.ckpt, metrics/, samples/, summary.json and,
with validation images, calibration.json; with method=auto also pilots/ and choice.json.

  semipix train --help KEYS                 every key with its type, default and meaning
  semipix train --help KEYS model=dhdn      ... of these options of the groups
  semipix train --cfg job                   the composed configuration
  semipix train resume=RUN --trust          continue a run folder that names code of your own
  semipix train experiment=compare/portrait variant=gct data.root=ROOT   one run of the documentation's comparisons

Groups and their options:
"""

HELP = {"-h", "--help"}

TRUST_HELP = "run code that the run folder names: classes of your own packages, commands; default: refuse it"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0, or 2 after an error of the user's (one line), or after an interruption 130 (SIGINT), 143 (SIGTERM) or 129
        (SIGHUP).

    Raises:
        Exception: a bug, of semipix or in code that a `_target_` names; in the second case with a note that says where.
    """
    if is_started_by_lightning():
        die_with_parent()
    with interruption.handled():
        try:
            status = _command(arguments)
            interruption.raise_if_interrupted(message="interrupted, when everything was done")
        except KeyboardInterrupt as error:
            return _interrupted(error)
        except Exception as error:
            if not interruption.received():
                raise
            return _interrupted(error)  # a library made something else of it
    return status


def _interrupted(error: BaseException) -> int:
    """Say that the command was interrupted; its exit status."""
    message = str(error) if isinstance(error, KeyboardInterrupt) else interruption.MESSAGE
    if is_first():
        try:
            print(f"semipix: {message or interruption.MESSAGE}", file=sys.stderr, flush=True)
        except OSError:  # the terminal is gone; what waits to be written would fail again at the end
            for number in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    if is_started_by_lightning():
        return 0  # Lightning kills the first process, which writes the checkpoint, where another one fails
    return 128 + interruption.number_of(error)


def _command(arguments: Sequence[str] | None) -> int:
    """Run one command; its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name need not be text
    if "_ARGCOMPLETE" in os.environ:  # a shell asks for completions
        import argcomplete

        argcomplete.autocomplete(_parser())
    if not HELP & set(given):
        keep_freed_memory()
    try:
        if given[:1] == ["train"]:
            return _train(given[1:])
        parsed = _parser().parse_args(given)
        command: Callable[[argparse.Namespace], int] = parsed.command
        return command(parsed)
    except SemipixError as error:
        interruption.raise_if_interrupted(error)
        return _print_error(str(error))
    except OSError as error:
        interruption.raise_if_interrupted(error)
        where = f"{error.filename}: " if error.filename else ""
        return _print_error(f"{where}{error.strerror or error}")
    except Exception as error:
        from semipix.user_code import note

        note(error)
        raise


def _print_error(message: str) -> int:
    print(f"{PREFIX}{one_line(message)}", file=sys.stderr)
    return 2


def _train(overrides: list[str]) -> int:
    if not HELP & set(overrides):
        before = "interrupted before the first step; nothing was trained"
        try:
            from semipix.launch.app import train_command
        except BaseException as error:
            interruption.raise_if_interrupted(error, before)  # an import may make something else of it
            raise
        try:
            return train_command(overrides)
        except interruption.Interrupted as error:
            if str(error) != interruption.MESSAGE:  # it says more already
                raise
            raise interruption.Interrupted(error.number, before) from None
    return _train_help([item for item in overrides if item not in HELP])


def _train_help(asked: list[str]) -> int:
    """Print the common uses, or with KEYS and options of groups every key of them."""
    from semipix.launch.completion import groups

    if not asked:
        print(TRAIN_HELP + "\n".join(f"  {group:<14}{', '.join(names)}" for group, names in groups().items()))
        return 0
    if asked[0].lower() != "keys":
        raise SemipixError(f"--help {asked[0]}: KEYS expected, as in semipix train --help KEYS model=dhdn")
    from semipix.launch.compose import compose_unresolved
    from semipix.launch.keys import describe

    print("\n".join(describe(compose_unresolved(asked[1:]))))
    return 0


def _complete(prefix: str, **found: Any) -> list[str]:
    """Completions of an argument of `semipix train`."""
    from semipix.launch.completion import overrides

    return overrides(prefix, **found)


class _InstallCompletion(argparse.Action):
    """Installs shell completion and exits."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, value: Any, option: Any = None) -> None:
        from semipix.launch.completion import install

        shell = value or os.environ.get("SHELL", "")
        try:
            start = install(shell)
        except ValueError as error:
            raise SemipixError(f"--install-completion: {error}, as in semipix --install-completion bash") from None
        print(f"{start}: completion is installed; open a new shell, or run: source {start}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="semipix", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--version", action="version", version=f"semipix {__version__}")
    parser.add_argument(
        "--install-completion",
        action=_InstallCompletion,
        nargs="?",
        metavar="SHELL",
        help="install completion of commands and keys for bash or zsh, and exit",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    train = commands.add_parser("train", help="train on labeled and unlabeled images (semipix train --help)")
    train.add_argument("overrides", nargs="*").completer = _complete  # type: ignore[attr-defined]

    evaluate = commands.add_parser("evaluate", help="measure a run on held-out images")
    evaluate.add_argument("run", type=Path, help="run folder")
    evaluate.add_argument("--split", choices=("test", "val"), default="test")
    evaluate.add_argument("--checkpoint", choices=("best", "last"), help="default: best where validation chose one")
    evaluate.add_argument("--batch-size", type=int, metavar="N", help="default: the run's data.eval_batch_size")
    evaluate.add_argument(
        "--max-pixels", type=int, metavar="N", help="most pixels of an image; default: the run's data.max_pixels"
    )
    _add_tiles(evaluate)
    _add_networks(evaluate)
    evaluate.add_argument("--data", type=Path, metavar="ROOT", help="the run's data folder, where it has moved")
    evaluate.add_argument(
        "--report",
        nargs="?",
        type=Path,
        const=Path(),
        metavar="FILE",
        help="also write a page with tables, curves and pictures; default: RUN/report-SPLIT.html",
    )
    evaluate.add_argument("--trust", action="store_true", help=TRUST_HELP)
    evaluate.set_defaults(command=_evaluate)

    predict = commands.add_parser("predict", help="masks, pictures, error maps and scores of new images")
    predict.add_argument("run", type=Path, help="run folder")
    predict.add_argument("images", type=Path, nargs="+", help="files or folders of images and videos")
    predict.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder for masks/ or predictions/, pictures/, errors/, scores.csv; by options accepted/, annotations/, "
        "videos/",
    )
    predict.add_argument(
        "--video",
        action="append",
        choices=("overlay", "masks", "errors"),
        default=[],
        help="write a video of each video instead of files for each frame; may be given several times",
    )
    predict.add_argument("--every", type=int, metavar="N", default=1, help="of videos, predict only each Nth frame")
    predict.add_argument("--trimaps", type=Path, help="matting: folder with a trimap of each image's stem")
    predict.add_argument(
        "--max-pixels", type=int, metavar="N", help="most pixels of an image; default: the run's data.max_pixels"
    )
    predict.add_argument("--checkpoint", choices=("best", "last"), help="default: best where validation chose one")
    predict.add_argument(
        "--risk",
        type=float,
        metavar="R",
        help="accept pixels of which at most the share R is wrong (regression: with at most this mean absolute error)",
    )
    predict.add_argument(
        "--write",
        choices=("coco", "labelme", "cvat", "labelstudio"),
        help="also write annotations/ to correct in a labeling tool",
    )
    predict.add_argument(
        "--uncertain",
        type=float,
        metavar="P",
        help="annotate no pixel that is wrong with a probability above P",
    )
    _add_tiles(predict)
    _add_networks(predict)
    predict.add_argument("--skip-existing", action="store_true", help="continue an interrupted prediction")
    predict.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="ray: by all workers of a Ray cluster (RAY_ADDRESS)"
    )
    predict.add_argument("--trust", action="store_true", help=TRUST_HELP)
    predict.set_defaults(command=_predict)

    calibrate = commands.add_parser(
        "calibrate", help="fit the error map of a run on its validation images; training does it at its end"
    )
    calibrate.add_argument("run", type=Path, help="run folder, in which calibration.json is written")
    calibrate.add_argument("--checkpoint", choices=("best", "last"), help="default: best where validation chose one")
    calibrate.add_argument(
        "--max-pixels", type=int, metavar="N", help="most pixels of an image; default: the run's data.max_pixels"
    )
    calibrate.add_argument("--data", type=Path, metavar="ROOT", help="the run's data folder, where it has moved")
    _add_networks(calibrate)
    calibrate.add_argument("--trust", action="store_true", help=TRUST_HELP)
    calibrate.set_defaults(command=_calibrate)

    compare = commands.add_parser(
        "compare", help="compare runs on the same data: is a method worth it, with how many labels"
    )
    compare.add_argument(
        "runs", type=Path, nargs="+", help="run folders, or folders with runs below them, as of a sweep"
    )
    compare.add_argument(
        "--out", type=Path, help="folder for compare.json, compare.csv and compare.md; default: only the terminal"
    )
    compare.add_argument("--split", choices=("test", "val"), help="default: test where the runs have test images")
    compare.add_argument("--no-evaluate", action="store_true", help="leave runs out that were not evaluated")
    compare.add_argument("--data", type=Path, metavar="ROOT", help="the runs' data folder, where it has moved")
    compare.add_argument("--json", action="store_true", help="print compare.json instead of the table")
    compare.add_argument("--trust", action="store_true", help=TRUST_HELP)
    compare.set_defaults(command=_compare)
    export = commands.add_parser("export", help="one file with the deployed network: ONNX, torch.export, weights")
    export.add_argument("run", type=Path, help="run folder")
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="such as model.onnx; it is replaced")
    export.add_argument(
        "--format", choices=("onnx", "torch-export", "safetensors"), help="default: .onnx, .pt2 or .safetensors of FILE"
    )
    export.add_argument("--with-error-map", action="store_true", help="also the error map and the networks it needs")
    export.add_argument(
        "--int8", action="store_true", help="quantise to 8 bits, and measure the change on the validation images"
    )
    export.add_argument("--checkpoint", choices=("best", "last"), help="default: best where validation chose one")
    _add_deploy(export)
    export.add_argument("--data", type=Path, metavar="ROOT", help="with --int8: the data folder, where it has moved")
    export.add_argument("--trust", action="store_true", help=TRUST_HELP)
    export.set_defaults(command=_export)

    data = commands.add_parser("data", help="look at data before training").add_subparsers(required=True)
    check = data.add_parser("check", help="counts, sizes, classes and every problem of a folder")
    check.add_argument("root", type=Path, help="folder with images/ and masks/, or with inputs/ and targets/")
    check.add_argument(
        "keys",
        nargs="*",
        metavar="KEY=VALUE",
        help="keys of data as semipix train takes them, such as 'data.mask_values={0:0,255:1}'",
    )
    kinds = ("denoising", "enhancement", "matting", "regression")
    check.add_argument("--kind", choices=kinds, help="what targets/ are; default: what they look like")
    check.add_argument(
        "--coverage", action="store_true", help="also name kinds of training images of which none has a label"
    )
    check.set_defaults(command=_check)

    convert = data.add_parser(
        "convert", help="write the annotations of another tool as a folder with images/, masks/ and classes.txt"
    )
    convert.add_argument("source", type=Path, help="folder, file or zip archive of the annotations")
    convert.add_argument("root", type=Path, help="new folder, which semipix train data=folder data.root=ROOT takes")
    convert.add_argument(
        "--from", dest="form", choices=("coco", "labelme", "yolo", "cvat", "voc", "colours"), required=True
    )
    convert.add_argument("--images", type=Path, metavar="DIR", help="folder of the images; default: in the source")
    convert.add_argument(
        "--unannotated", choices=("background", "ignore"), help="what pixels are that nobody annotated; ignore: void"
    )
    convert.add_argument("--empty", choices=("labeled", "unlabeled"), help="coco: what an image without any object is")
    convert.add_argument(
        "--classes", type=Path, metavar="FILE", help="class names by index, one a line; for masks with their colours"
    )
    convert.add_argument("--link", action="store_true", help="link to the images instead of copying them")
    convert.add_argument(
        "--orientation",
        choices=("auto", "shown", "stored"),
        default="auto",
        help="annotations of photos with an orientation tag refer to the turned photo (shown) or to its stored pixels",
    )
    convert.add_argument("--max-pixels", type=int, metavar="N", help="most pixels of an image; default: 160,000,000")
    convert.set_defaults(command=_convert)
    frames = data.add_parser("frames", help="write frames of videos into a data folder, as images to label or to use")
    frames.add_argument("clips", type=Path, nargs="+", metavar="CLIP", help="video files or folders of videos")
    frames.add_argument(
        "root", type=Path, help="data folder, new or with images/ or inputs/; gets PART/CLIP/000001.png"
    )
    which = frames.add_mutually_exclusive_group()
    which.add_argument("--every", type=int, metavar="N", help="take each Nth frame; default: all")
    which.add_argument("--fps", type=float, metavar="F", help="take F frames of each second")
    frames.add_argument(
        "--split", choices=("unlabeled", "train"), default="unlabeled", help="train: images/train; default: unlabeled"
    )
    frames.add_argument("--format", choices=("png", "jpg"), default="png", help="default: png, without any loss")
    frames.add_argument("--skip-existing", action="store_true", help="leave videos out whose frames are there")
    frames.add_argument("--max-pixels", type=int, metavar="N", help="most pixels of a frame; default: 160,000,000")
    frames.set_defaults(command=_frames)
    pick = data.add_parser(
        "pick", help="which images to label first", description="Print the images to label first, one name a line."
    )
    pick.add_argument("root", type=Path, help="folder with images/ or inputs/; it needs no label")
    pick.add_argument(
        "keys",
        nargs="*",
        metavar="KEY=VALUE",
        help="data.bands and data.range as semipix train takes them, if images have bands instead of colours",
    )
    pick.add_argument("-n", type=int, required=True, metavar="N", dest="count", help="number of images")
    pick.add_argument("--by", choices=("kmeans", "kcentre", "random"), default="kmeans", help="default: kmeans")
    pick.add_argument(
        "--depth",
        choices=("early", "middle", "late", "all"),
        default="all",
        help="maps of the encoder by which images are compared; default: all",
    )
    pick.add_argument("--seed", type=int, default=0, help="default: 0")
    pick.add_argument(
        "--labels",
        metavar="FILE",
        help="names that count as labeled, or none; default: images with a label, or none if all have one",
    )
    pick.add_argument("--write", type=Path, metavar="FILE", help="also write the names to a file, for data.labels=FILE")
    pick.add_argument(
        "--sheet",
        type=Path,
        metavar="FILE",
        help="contact sheet, .jpg, .png or .html; default: beside the file of --write, as NAME-sheet.jpg",
    )
    pick.add_argument("--max-pixels", type=int, metavar="N", help="most pixels of an image; default: 160,000,000")
    pick.set_defaults(command=_pick)

    demo = commands.add_parser("demo", help="train gct_strong and both supervised baselines on the built-in data")
    demo.add_argument("--out", type=Path, default=Path("runs/demo"))
    demo.set_defaults(command=_demo)
    return parser


def _add_tiles(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--tile",
        type=int,
        metavar="N",
        help="compute images that are larger than N pixels in tiles of N x N; default: only where memory needs it",
    )
    command.add_argument("--overlap", type=int, metavar="N", help="pixels that tiles share; default: 3/8 of N")


def _add_networks(command: argparse.ArgumentParser) -> None:
    command.add_argument("--tta", choices=("flips", "scales"), help="average predictions of several views of an image")
    _add_deploy(command)


def _add_deploy(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--deploy", metavar="NAME", help="first, second or fused of a pair; default: the one that validation chose"
    )


def _evaluate(options: argparse.Namespace) -> int:
    from semipix.inference.evaluate import keep, kept_name, measured, results_table
    from semipix.methods.tiles import Tiling

    if options.report is not None:
        from semipix.report.page import require_plotly

        require_plotly()
        if options.tta or options.deploy:
            raise SemipixError("--report: it shows the deployed network; leave --tta and --deploy out")
    tiling = Tiling.given(options.tile, options.overlap)
    evaluation = measured(
        options.run,
        options.split,
        checkpoint=options.checkpoint,
        batch_size=options.batch_size,
        root=options.data,
        max_pixels=options.max_pixels,
        trust=options.trust,
        tiling=tiling,
        tta=options.tta,
        deploy=options.deploy,
    )
    print(results_table(evaluation.figures), flush=True)  # before they are written: a full disk costs the file alone
    name = kept_name(options.split, options.deploy, options.tta)
    keep(options.run, name, evaluation, options.checkpoint, tiled=tiling is not None)
    if options.report is not None:
        from semipix.report.page_run import write_run_page

        file = write_run_page(
            options.run,
            options.split,
            None if options.report == Path() else options.report,
            checkpoint=options.checkpoint,
            root=options.data,
            max_pixels=options.max_pixels,
            trust=options.trust,
            tiling=tiling,
        )
        print(f"open {file}")
    return 0


def _predict(options: argparse.Namespace) -> int:
    from semipix.inference.predict import predict
    from semipix.methods.tiles import Tiling

    failures = predict(
        options.run,
        options.images,
        options.out,
        checkpoint=options.checkpoint,
        skip_existing=options.skip_existing,
        trimaps=options.trimaps,
        engine=options.engine,
        max_pixels=options.max_pixels,
        trust=options.trust,
        risk=options.risk,
        write=options.write,
        uncertain=options.uncertain,
        tiling=Tiling.given(options.tile, options.overlap),
        tta=options.tta,
        deploy=options.deploy,
        every=options.every,
        video=options.video,
    )
    for failure in failures:
        _print_error(failure)
    print(f"{options.out}: see {', '.join(sorted(item.name for item in options.out.glob('*/')))}")
    return 2 if failures else 0


def _calibrate(options: argparse.Namespace) -> int:
    from semipix.training.calibrating import calibrate_run
    from semipix.training.quiet import quiet

    quiet()
    lines = calibrate_run(
        options.run,
        checkpoint=options.checkpoint,
        root=options.data,
        max_pixels=options.max_pixels,
        trust=options.trust,
        tta=options.tta,
        deploy=options.deploy,
    )
    print("\n".join(lines))
    return 0


def _compare(options: argparse.Namespace) -> int:
    from semipix.report.comparison_command import compare, write
    from semipix.report.comparison_tables import terminal_table
    from semipix.training.quiet import quiet

    quiet()
    if options.out is not None:
        from semipix.report.page import require_plotly

        require_plotly()
    comparison = compare(
        options.runs,
        options.split,
        evaluate=not options.no_evaluate,
        root=options.data,
        trust=options.trust,
    )
    print(comparison.as_json() if options.json else terminal_table(comparison), flush=True)
    if options.out is not None:
        from semipix.report.page_comparison import write_comparison_page

        write(comparison, options.out)
        page = write_comparison_page(comparison, options.out, root=options.data, trust=options.trust)
        if not options.json:
            print(f"see {options.out}; open {page}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from semipix.inference.export import export

    lines = export(
        options.run,
        options.out,
        options.format,
        with_error_map=options.with_error_map,
        int8=options.int8,
        checkpoint=options.checkpoint,
        deploy=options.deploy,
        root=options.data,
        trust=options.trust,
    )
    print("\n".join(lines))
    return 0


def _check(options: argparse.Namespace) -> int:
    from semipix.data.check import check_folder

    keys = _data_keys(options.keys)
    kind = keys.pop("kind", options.kind)
    if options.kind not in (None, kind):
        raise SemipixError(f"data.kind: {kind!r} found, but also --kind {options.kind}; give one of them")
    report = check_folder(options.root, kind, **keys)
    print("\n".join(report.lines()), flush=True)
    if options.coverage:
        from semipix.data.files.bands import Bands
        from semipix.data.pick import coverage_lines

        given = _given(max_pixels=keys.get("max_pixels"), bands=Bands.of_options(keys))
        print("\n".join(coverage_lines(options.root, keys.get("labels"), **given)))
    return 2 if report.problems else 0


def _convert(options: argparse.Namespace) -> int:
    from semipix.data.annotations.convert import convert
    from semipix.data.files.opening import MAX_PIXELS

    conversion = convert(
        options.source,
        options.root,
        options.form,
        images=options.images,
        unannotated=options.unannotated,
        empty=options.empty,
        classes=options.classes,
        link=options.link,
        orientation=options.orientation,
        max_pixels=options.max_pixels or MAX_PIXELS,
    )
    for line in conversion.left_out:
        print(f"semipix: {one_line(line)}", file=sys.stderr)
    print("\n".join(conversion.lines()))
    return 0


def _frames(options: argparse.Namespace) -> int:
    from semipix.data.frames import write_frames

    frames = write_frames(
        options.clips,
        options.root,
        every=options.every,
        fps=options.fps,
        split=options.split,
        form=options.format,
        skip_existing=options.skip_existing,
        **_given(max_pixels=options.max_pixels),
    )
    for line in frames.left_out:
        print(f"semipix: {one_line(line)}", file=sys.stderr)
    print("\n".join(frames.lines))
    for problem in frames.problems:
        _print_error(problem)
    return 2 if frames.problems else 0


def _pick(options: argparse.Namespace) -> int:
    from semipix.data.files.bands import Bands
    from semipix.data.pick import pick
    from semipix.data.pick_sheet import check_sheet, write_sheet

    sheet = options.sheet
    if sheet is None and options.write is not None:
        sheet = options.write.with_name(f"{options.write.stem}-sheet.jpg")
    if sheet is not None:
        check_sheet(sheet)
    keys = _data_keys(options.keys)
    if others := sorted({*keys} - {"bands", "range"}):
        raise SemipixError(f"data.{others[0]}: semipix data pick takes only data.bands and data.range; leave it out")
    given = _given(max_pixels=options.max_pixels, bands=Bands.of_options(keys))
    found = pick(options.root, options.count, options.by, options.depth, options.seed, options.labels, **given)
    print("\n".join(found.names), flush=True)
    for note in found.notes:
        print(f"semipix: {one_line(note)}", file=sys.stderr)
    if options.write is not None:
        found.write(options.write)
    if sheet is not None:
        write_sheet(sheet, found.root, found.cells, found.reader)
        print(f"semipix: see {sheet}", file=sys.stderr)
    return 0


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {key: value for key, value in options.items() if value is not None}


def _data_keys(given: Sequence[str]) -> dict[str, Any]:
    """Keys of `data`, by the grammar of `semipix train`, with or without `data.` before them."""
    if not given:
        return {}
    from semipix.launch.overrides import read_overrides

    keys = {key.removeprefix("data."): value for key, value in read_overrides(given).items()}
    if "root" in keys:
        raise SemipixError("data.root: the folder is given already; expected semipix data check ROOT [KEY=VALUE ...]")
    for key, name in (("data", "data"), ("_target_", "data._target_")):
        if key in keys:
            raise SemipixError(f"{name}: {keys[key]!r} found, but the folder's layout says what reads it; leave it out")
    return keys


def _demo(options: argparse.Namespace) -> int:
    from semipix.report.demo import demo

    demo(options.out)
    return 0


def entry() -> None:
    """Entry point of the console script."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    sys.exit(main())


if __name__ == "__main__":
    entry()
