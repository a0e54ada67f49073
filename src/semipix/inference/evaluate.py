"""Measure a run on held-out images."""

import json
from pathlib import Path

import lightning.pytorch as pl

from semipix import train
from semipix.callbacks import RunProgress
from semipix.config import call
from semipix.errors import SemipixError
from semipix.training_app import quiet


def evaluate(
    run: Path, split: str = "test", checkpoint: str | None = None, batch_size: int | None = None
) -> dict[str, float]:
    """Metrics over whole images at their own size, with the run's own data and split.

    Args:
        run: run folder.
        split: `test` or `val`.
        checkpoint: `best` or `last`; by default best where validation chose one.
        batch_size: images of one batch; by default the run's `data.eval_batch_size`.

    Returns:
        Metrics by name; also written to `evaluation-{split}.json` in the run folder.

    Raises:
        SemipixError: no run, no checkpoint, no image in that split, or too little memory.
    """
    quiet()
    config = train.load_config(run)
    if batch_size is not None:
        config["data"]["eval_batch_size"] = batch_size
    train.check_config(config)
    method = train.load_method(run, checkpoint)
    data = train.build_data(config, train.load_split(run))
    if not getattr(data.split, split):
        raise SemipixError(f"{run}: its data has no {split} images; choose another --split or add images/{split}")
    learner = train.build_learner(config, method, steps=1)
    options = {key: config["trainer"][key] for key in ("precision",) if key in config["trainer"]}
    # A run may be measured on a machine without the accelerator that it was trained on.
    options["accelerator"] = "cpu" if config["trainer"].get("accelerator") == "cpu" else "auto"
    trainer = call(
        "trainer", pl.Trainer, devices=1, logger=False, enable_model_summary=False, callbacks=[RunProgress()], **options
    )
    loader = data.test_dataloader() if split == "test" else data.val_dataloader()
    try:
        found = trainer.test(learner, loader, verbose=False)[0]
    except (RuntimeError, MemoryError) as error:
        if not (short := train.memory_short(error)):
            raise
        raise SemipixError(
            f"{run}: out of {short} in batches of {data.eval_batch_size} {split} images; lower --batch-size, or train "
            "with a smaller data.resize"
        ) from error
    results = {key.removeprefix("test/"): value for key, value in found.items()}
    (run / f"evaluation-{split}.json").write_text(json.dumps(results, indent=2))
    return results


def table(results: dict[str, float]) -> str:
    """Metrics as aligned lines."""
    width = max(len(name) for name in results)
    return "\n".join(f"{name:{width}}  {value:.4f}" for name, value in results.items())
