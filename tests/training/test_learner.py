"""The Learner under Lightning's trainer.

Also tests training/finiteness.py and training/measuring.py.
"""

import functools
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR, PolynomialLR
from torchmetrics.functional.classification import binary_calibration_error

from semipix.batch import EvalSample
from semipix.data.targets import ImageTarget
from semipix.errors import SemipixError
from semipix.functional import grouping as batches
from semipix.functional.error_measures import CALIBRATION_BINS
from semipix.methods import slabs
from semipix.methods.base import Evidence
from semipix.methods.error_maps import error_maps
from semipix.tasks.base import Task
from semipix.tasks.regression import Regression
from semipix.tasks.segmentation import Segmentation
from semipix.training.finiteness import Finiteness
from semipix.training.learner import Learner
from tests.helpers.data import steps
from tests.helpers.learners import Count, fit, make_learner
from tests.helpers.tiny import (
    CLASSES,
    SIDE,
    TinySource,
    make_data,
    make_method,
    options,
    predict_always,
    rand,
    randint,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*isinstance.*deprecated.*"),
    pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training.*"),
]


def validate(learner: Learner, source: TinySource) -> None:
    """One pass over the validation images."""
    settings: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    trainer = pl.Trainer(accelerator="cpu", enable_model_summary=False, **settings)
    trainer.validate(learner, datamodule=make_data(learner.method, source), verbose=False)


class ColourSource(TinySource):
    """Targets are the images themselves."""

    kind = "regression"

    def target(self, name: str) -> Any:
        return self.image(name).as_subclass(ImageTarget)


def maps_and_errors(method: Any, source: TinySource, names: list[str]) -> tuple[dict[str, list[float]], list[bool]]:
    """The error maps of the deployed network at all pixels of the images, and whether the pixels are wrong."""
    maps: dict[str, list[float]] = {}
    wrong: list[bool] = []
    with torch.inference_mode():
        for name in names:
            found = method.eval().evidence(source.image(name)[None].as_subclass(Tensor))
            wrong += (found.predictions[0].argmax(1) != source.target(name)).flatten().tolist()
            for key, scores in error_maps(method.task, found).items():
                maps.setdefault(key, []).extend(scores.flatten().tolist())
    return maps, wrong


class Squared:
    """A written error map whose values are the squares of its scores."""

    name = "squared"

    def parts(self, task: Any, evidence: Evidence, image: Tensor) -> tuple[Tensor, Tensor]:
        assert evidence.flaw is not None
        return evidence.flaw, evidence.flaw[:, :0]

    def constant(self, means: Tensor) -> Tensor:
        return means.new_zeros(len(means))

    def values(self, scores: Tensor) -> Tensor:
        return scores.square()


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("name", options("method"))
class TestEveryMethod:
    def test_logs_every_term_and_counts_each_step_once(self, name: str) -> None:
        method = make_method(name)
        count = Count(method)
        before = state(method)
        trainer = fit(make_learner(method), max_steps=3)
        assert trainer.global_step == count.losses == count.steps == 3
        terms = {f"train/{term}" for term in make_method(name).losses(count.batches[0], 0.0)}
        assert {key for key in trainer.callback_metrics if key.startswith("train/")} == {*terms, "train/loss"}
        total = sum(float(trainer.callback_metrics[term]) for term in terms)
        assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(total, rel=1e-5)
        trained = {key for key, value in method.named_parameters() if not torch.equal(value, before[key])}
        assert trained == {key for key, _ in method.named_parameters()}

    def test_accumulates_gradients(self, name: str) -> None:
        method = make_method(name)
        count = Count(method)
        trainer = fit(make_learner(method), TinySource(labeled=8, unlabeled=8), accumulate_grad_batches=2)
        assert (trainer.global_step, count.steps, count.losses) == (2, 2, 4)

    def test_trains_in_bfloat16(self, name: str) -> None:
        method = make_method(name)
        seen = []
        models = [module for module in method.modules() if isinstance(module, nn.Conv2d)]
        models[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
        fit(make_learner(method), precision="bf16-mixed", max_steps=1)
        assert set(seen) == {torch.bfloat16}
        assert all(value.dtype == torch.float32 and value.isfinite().all() for value in method.parameters())

    @pytest.mark.parametrize("frozen", [True, False])
    def test_freezes_running_statistics(self, name: str, frozen: bool) -> None:
        method = make_method(name)
        before = {key: value.clone() for key, value in method.named_buffers() if "running" in key}
        learner = make_learner(method, freeze_batch_norm=frozen)
        fit(learner, limit_val_batches=1, val_check_interval=1, num_sanity_val_steps=1)  # validation switches modes
        after = dict(method.named_buffers())
        assert all(torch.equal(after[key], value) == frozen for key, value in before.items())
        assert learner.training, "what is not a batch norm trains on"


def test_steps_have_all_their_batches_where_an_epoch_has_fewer() -> None:
    method = make_method("supervised")
    count = Count(method)
    data = make_data(method, TinySource(labeled=4, unlabeled=8))  # two batches an epoch
    data.accumulate = 4
    settings: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=3,
        accumulate_grad_batches=4,
        limit_val_batches=0,
        enable_model_summary=False,
        **settings,
    )
    trainer.fit(make_learner(method), datamodule=data)
    assert (trainer.global_step, count.steps, count.losses) == (3, 3, 12)
    assert count.epochs == pytest.approx([number / data.batches_per_epoch for number in range(12)])


def test_what_a_method_sees() -> None:
    method = make_method("gct")
    count = Count(method)
    fit(make_learner(method), data={"labeled_per_batch": 1}, max_steps=3)
    assert [batch.image.shape for batch in count.batches] == [(4, 3, SIDE, SIDE)] * 3
    assert [batch.target.shape for batch in count.batches] == [(1, SIDE, SIDE)] * 3
    assert count.epochs == pytest.approx([0, 1 / 2, 1]), "six unlabeled images are two batches of three"
    method = make_method("supervised")
    count = Count(method)
    fit(make_learner(method), max_steps=1)
    assert count.batches[0].target.shape == (4, SIDE, SIDE), "all of the batch is labeled"


@pytest.mark.parametrize("name", ["supervised", "gct"])
def test_clipping_limits_the_gradient_over_all_networks(name: str) -> None:
    norms = {}
    for limit in (None, 0.01):
        method = make_method(name)
        count = Count(method)
        fit(make_learner(method), gradient_clip_val=limit, max_steps=1)
        norms[limit] = count.norms[0]
    assert norms[None] > 0.1
    assert norms[0.01] == pytest.approx(0.01, rel=1e-3)


def test_the_schedule_moves_every_optimizer_each_step() -> None:
    method = make_method("gct")
    scheduler = functools.partial(PolynomialLR, total_iters=4, power=1.0)
    trainer = fit(make_learner(method, lr=0.4, scheduler=scheduler), max_steps=3)
    rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
    assert rates == pytest.approx([0.1, 0.1, 3e-3 / 4])


def test_a_schedule_of_absolute_rates_keeps_the_detectors() -> None:
    """The configured rate is 0.4 and the detector's 3e-3; the highest rate comes at the end of the third step."""
    method = make_method("gct")
    scheduler = functools.partial(OneCycleLR, total_steps=4, max_lr=0.8, pct_start=0.75, cycle_momentum=False)
    trainer = fit(make_learner(method, lr=0.4, scheduler=scheduler), max_steps=2)
    rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
    assert rates == pytest.approx([0.8, 0.8, 6e-3])


@pytest.mark.parametrize("memory", [True, False])
def test_channels_last_is_asked_of_images_and_weights(memory: bool) -> None:
    method = make_method("mean_teacher")
    count = Count(method)
    fit(make_learner(method, channels_last=memory), max_steps=1)
    image = count.batches[0].image
    assert image.is_contiguous(memory_format=torch.channels_last) == memory
    assert image.is_contiguous() == (not memory)
    assert method.student.last.weight.is_contiguous(memory_format=torch.channels_last) == memory


class TestValidation:
    SIZES = TinySource(val=5, label=1)
    """Validation images of four sizes, all pixels of class 1."""

    @pytest.mark.parametrize("better", [0, 1])
    def test_deploys_the_better_of_the_pair(self, better: int) -> None:
        method = make_method("gct")
        predict_always(method.models[better], 1)
        predict_always(method.models[1 - better], 0)
        trainer = fit(make_learner(method, lr=0.0), self.SIZES, limit_val_batches=1.0, val_check_interval=1)
        names = ["first", "second"]
        assert method.deployed_name() == names[better]
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        assert metrics[f"val/{names[better]}/miou"] == metrics["val/miou"] == metrics["val/accuracy"] == 1
        assert metrics[f"val/{names[1 - better]}/miou"] == 0
        assert metrics["val/iou/1"] == 1
        assert {key for key in metrics if key.startswith("val/diagnostics/")} == {
            f"val/diagnostics/{name}" for name in method.diagnostics()
        }

    @pytest.mark.parametrize("always", ["first", "second"])
    def test_one_of_the_pair_may_be_chosen_in_advance(self, always: str) -> None:
        method = make_method("gct", deploy=always)
        other = "second" if always == "first" else "first"
        predict_always(method.candidates()[always], 0)
        predict_always(method.candidates()[other], 1)  # the better one: all pixels are of class 1
        trainer = fit(make_learner(method, lr=0.0), self.SIZES, limit_val_batches=1.0, val_check_interval=1)
        metrics = trainer.callback_metrics
        assert method.deployed_name() == always
        assert metrics["val/miou"] == metrics[f"val/{always}/miou"] == 0, "best.ckpt is chosen by its figure"
        assert metrics[f"val/{other}/miou"] == 1, "the other is measured too"

    def test_the_sanity_check_deploys_nothing_and_leaves_no_trace(self) -> None:
        method = make_method("gct")
        predict_always(method.models[1], 1)
        predict_always(method.models[0], 0)
        learner = make_learner(method, lr=0.0)
        fit(learner, self.SIZES, limit_val_batches=1.0, num_sanity_val_steps=1, val_check_interval=2, max_steps=1)
        assert method.deployed_name() == "first"
        for metrics in learner.candidate_metrics.values():
            assert int(metrics["miou"].confmat.sum()) == 0

    def test_every_image_counts_at_its_own_size(self) -> None:
        method = make_method("supervised")
        source = TinySource(val=5)
        predict_always(method.model, 2)
        trainer = fit(make_learner(method, lr=0.0), source, limit_val_batches=1.0, val_check_interval=1)
        pixels = torch.cat([source.target(name).flatten() for name in source.val()])
        assert len({source.target(name).shape for name in source.val()}) > 2
        assert float(trainer.callback_metrics["val/accuracy"]) == pytest.approx(float((pixels == 2).float().mean()))

    @pytest.mark.parametrize("name", ["gct", "supervised"])
    def test_figures_do_not_depend_on_the_batches(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        found = []
        for pixels, settings in ((1, {}), (2**17, {"eval_batch_size": 9}), (2 * SIDE**2, {"eval_batch_size": 4})):
            monkeypatch.setitem(batches.BATCH_PIXELS, "cpu", pixels)
            learner = make_learner(make_method(name), lr=0.0)
            trainer = fit(learner, TinySource(val=9), settings, limit_val_batches=1.0, val_check_interval=1)
            found.append({key: float(value) for key, value in trainer.callback_metrics.items() if "val/" in key})
        assert "val/iou/1" in found[0]
        assert "val/diagnostics/both_flawed" in found[0] or name == "supervised"
        for others in found[1:]:
            assert others == pytest.approx(found[0], rel=1e-5, nan_ok=True)

    @pytest.mark.parametrize("per_class", [False, True])
    def test_pseudo_labels_of_images_in_parts_steer_as_those_of_whole_images(
        self, per_class: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = []
        for pixels in (5_800_000, 1):
            monkeypatch.setitem(slabs.PIXELS_AT_ONCE, "cpu", pixels)
            method = make_method("gct_strong", confidence=0.3, label_accuracy=0.6, per_class=per_class)
            for sure in method.sure if per_class else ():
                sure.average.copy_(torch.tensor([0.5, 0.4, 0.45]))
            learner = make_learner(method, lr=0.0)
            validate(learner, TinySource(val=3))
            figures = learner.trainer.callback_metrics
            assert learner.large.applies((SIDE, SIDE)) == (pixels == 1)
            found.append([float(figures["val/pseudo_labels/share/first"]), *method.needed.tolist()])
        assert found[0][0] > 0
        assert found[1] == pytest.approx(found[0], rel=1e-4)

    def test_without_a_counted_pseudo_label_a_line_says_that_nothing_steers(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(slabs.PIXELS_AT_ONCE, "cpu", 1)
        method = make_method("gct_strong", detector="paper", label_accuracy=0.6)
        validate(make_learner(method, lr=0.0), TinySource(val=3))
        assert "semipix: method.label_accuracy: no pixel of the validation images could be" in capsys.readouterr().err

    def test_candidates_and_diagnostics_share_one_pass_of_each_model(self) -> None:
        method = make_method("gct", fusion=True)
        images = [0, 0]
        for number, model in enumerate(method.models):

            def count(module: nn.Module, inputs: tuple[Tensor], number: int = number) -> None:
                images[number] += 0 if module.norm.training else len(inputs[0])

            model.register_forward_pre_hook(count)
        fit(make_learner(method), TinySource(val=5), limit_val_batches=1.0, val_check_interval=1, max_steps=1)
        assert images == [5, 5]

    def test_a_candidate_without_a_figure_is_never_the_best(self) -> None:
        method = make_method("gct", task=Regression(3))
        nn.init.constant_(method.models[0].last.bias, float("nan"))
        learner = make_learner(method)
        validate(learner, ColourSource(val=3))
        assert method.deployed_name() == "second"
        assert learner.unmeasured == ""

    @pytest.mark.parametrize(("task", "source"), [(Regression(3), ColourSource), (Segmentation(3), TinySource)])
    def test_figures_that_are_not_numbers_name_their_cause(
        self, task: Task, source: type[TinySource], capfd: pytest.CaptureFixture[str]
    ) -> None:
        method = make_method("gct", task=task)
        for model in method.models:
            nn.init.constant_(model.last.bias, float("nan"))
        method.deploy("second")
        learner = make_learner(method)
        for _ in range(2):
            validate(learner, source(val=3))
        pixels = sum(source(val=3).image(name)[0].numel() for name in source(val=3).val())
        printed = [line for line in capfd.readouterr().err.splitlines() if "semipix" in line]
        assert printed == [
            f"semipix: validation: {task.primary} of the 3 images is not a number though {pixels} pixels count, so "
            "there is nothing to measure or choose by; check that the network's outputs are finite"
        ], "once"
        assert method.deployed_name() == "second", "nothing was chosen"

    @pytest.mark.parametrize("name", ["supervised", "gct", "gct_strong", "flaw_mean_teacher", "advssl"])
    def test_error_maps_are_those_of_the_best_candidate(self, name: str) -> None:
        method = make_method(name)
        if name.startswith("gct"):
            predict_always(method.deployable()[0], 0)  # so that the other model is better
            method.detector.last.weight.data.mul_(10)  # an untrained map is nearly constant, and falls into few bins
        source = TinySource(val=5)
        trainer = fit(make_learner(method, lr=0.0), source, limit_val_batches=1.0, val_check_interval=1)
        scores, wrong = maps_and_errors(method, source, source.val())
        assert len(set(wrong)) == 2
        logged = {key.removeprefix("val/errors/"): float(value) for key, value in trainer.callback_metrics.items()}
        assert {key.partition("/")[0] for key in logged if key.endswith("/auroc")} == scores.keys() >= {"softmax"}
        assert ("flaw" in scores) == (name != "supervised")
        assert ("disagreement" in scores) == name.startswith("gct")
        varied = {key: values for key, values in scores.items() if np.std(values) > 1e-3}
        assert varied.keys() == scores.keys() - ({"flaw"} if name == "advssl" else set()), "its discriminator is new"
        for key, values in varied.items():
            assert logged[f"{key}/auroc"] == pytest.approx(roc_auc_score(wrong, values), abs=1e-3), key
            assert logged[f"{key}/aupr"] == pytest.approx(average_precision_score(wrong, values), abs=1e-3), key

    def test_error_maps_of_regression_are_compared_with_absolute_errors(self) -> None:
        method = make_method("gct", task=Regression(3, high=2.0))
        trainer = fit(make_learner(method, lr=0.0), ColourSource(val=4), limit_val_batches=1.0, val_check_interval=1)
        logged = {key for key in trainer.callback_metrics if key.startswith("val/errors/")}
        measures = ("ause", "correlation", "image_spearman")
        assert logged == {f"val/errors/{name}/{key}" for name in ("flaw", "disagreement") for key in measures}
        errors, maps = [], []
        for name in ColourSource(val=4).val():
            image = ColourSource().image(name)[None]
            with torch.no_grad():
                found = method.eval().evidence(image)
            errors.append((2 * found.predictions[0] - image).abs().mean(1).flatten())  # in the data's units
            maps.append((found.predictions[0] - found.predictions[1]).abs().mean(1).flatten())
        expected = torch.corrcoef(torch.stack([torch.cat(maps), torch.cat(errors)]))[0, 1]
        assert float(trainer.callback_metrics["val/errors/disagreement/correlation"]) == pytest.approx(
            expected.item(), abs=1e-3
        )

    def test_maps_and_labels_may_differ_in_size(self) -> None:
        """Maps are resized as predictions are: a test of labels of twice the size has the figures of enlarged maps."""
        method = make_method("gct").eval()
        image, target = rand(3, 24, 20), randint(CLASSES, 48, 40)
        learner = make_learner(method)
        learner.on_test_epoch_start()
        learner.written = lambda evidence: Squared()
        with torch.inference_mode():
            learner.validation_step([EvalSample(image, target, "a")], 0)
            found = method.evidence(image[None])
            prediction = F.interpolate(found.predictions[0], (48, 40), mode="bilinear")
            wrong = (prediction.argmax(1) != target).flatten()
            measured = learner.error_metrics["first"].compute()  # type: ignore[operator]
            for name, scores in error_maps(method.task, found).items():
                enlarged = F.interpolate(scores, (48, 40), mode="bilinear").flatten()
                assert float(measured[f"{name}/auroc"]) == pytest.approx(roc_auc_score(wrong, enlarged), abs=1e-3)
            written = F.interpolate(found.flaw, (48, 40), mode="bilinear").square().flatten()
            expected = binary_calibration_error(written, wrong.int(), n_bins=CALIBRATION_BINS)
            assert float(measured["map/ece"]) == pytest.approx(float(expected), abs=1e-4), "scores are resized first"

    def test_a_test_measures_what_validation_chose(self) -> None:
        method = make_method("gct")
        predict_always(method.models[0], 1)
        predict_always(method.models[1], 0)
        method.deploy("second")
        learner = make_learner(method)
        trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
        source = TinySource(test=3, label=1)
        (results,) = trainer.test(learner, datamodule=make_data(method, source), verbose=False)
        assert results["test/miou"] == results["test/second/miou"] == 0
        assert results["test/first/miou"] == 1
        assert results["test/errors/softmax/risk80"] == 1, "of the deployed one, whose pixels are all wrong"
        assert "test/errors/map/risk80" not in results, "nothing is written"
        assert method.deployed_name() == "second"


class TestNonFinite:
    @pytest.mark.parametrize(
        ("spoil", "terms"),
        [
            (lambda method: method.student, "supervised, consistency"),
            (lambda method: method.teacher, "consistency"),
        ],
    )
    def test_names_the_term_and_the_files(self, spoil: Callable[[Any], nn.Module], terms: str) -> None:
        method = make_method("mean_teacher")
        count = Count(method)
        nn.init.constant_(spoil(method).last.bias, float("nan"))
        with pytest.raises(SemipixError) as error:
            fit(make_learner(method))
        message = str(error.value)
        assert f"at step 0 in {terms}; images of the batch: " in message
        assert message.count("unlabeled/") == 2
        assert message.replace("unlabeled/", "").count("labeled/") == 2
        assert "\n" not in message
        assert count.steps == 0, "no weight was spoilt"

    @pytest.mark.parametrize("reads", ["on_train_end", "on_save_checkpoint"])
    def test_a_result_that_comes_late_is_read_before_anything_is_kept(self, reads: str) -> None:
        learner = make_learner(make_method("mean_teacher"))
        given = ({},) if reads == "on_save_checkpoint" else ()
        learner._unread = Finiteness(torch.tensor([True, True]), ["supervised", "consistency"], ["a.png"], 3)
        getattr(learner, reads)(*given)
        learner._unread = Finiteness(torch.tensor([True, False]), ["supervised", "consistency"], ["a.png"], 4)
        with pytest.raises(SemipixError, match=r"at step 4 in consistency; images of the batch: a\.png;"):
            getattr(learner, reads)(*given)


def test_random_numbers_of_a_step_depend_on_seed_and_step_alone() -> None:
    def draws(seed: int, disturb: bool) -> list[float]:
        seen = []

        class Draw(Callback):
            def on_before_zero_grad(self, *args: Any) -> None:
                seen.append(float(torch.rand(())))
                torch.rand(17 * disturb)  # as a method would that draws more in one step than in another

        fit(make_learner(make_method("supervised"), seed=seed), callbacks=[Draw()])
        return seen

    assert draws(1, disturb=False) == draws(1, disturb=True) != draws(2, disturb=False)
    assert len(set(draws(1, disturb=False))) == 2


@pytest.mark.parametrize("name", ["gct", "gct_strong"])
def test_a_method_gets_strong_views_and_places_of_the_labeled_images(name: str) -> None:
    """Without them, a detector learns from errors on memorised images, and no label is withheld."""
    method = make_method(name, detector="cues", withhold=0.25, detection_images=2)
    data = make_data(method, TinySource())
    learner = make_learner(method)
    step = next(iter(steps(data)))
    batch = learner._assemble(step)
    labeled = step["labeled"]
    assert batch.place is not None
    assert batch.place.tolist() == pytest.approx(labeled.places)
    views = batch.labeled_views()
    assert len(views) == 2
    for view in views:
        assert view.image.shape == labeled.image[:2].shape
        assert not torch.equal(view.image, labeled.image[:2])
    assert not torch.equal(views[0].image, views[1].image), "a different view for each of the pair"
    plain = make_learner(make_method("supervised"))._assemble(step)
    assert plain.labeled_views() == []


@pytest.mark.parametrize("crop", [SIDE, 40])
def test_a_method_gets_the_pixels_that_images_show(crop: int) -> None:
    method = make_method("gct_strong", detector="cues")
    step = next(iter(steps(make_data(method, TinySource(), crop=crop, pad=True))))
    batch = make_learner(method)._assemble(step)
    if crop == SIDE:
        assert batch.shown is None
        return
    assert batch.shown is not None
    assert torch.equal(batch.shown, (batch.image > 0).all(1, keepdim=True))
    first = batch.strong_views()[0].compared(torch.ones_like(batch.unlabeled[:, :1], dtype=torch.bool))
    assert torch.equal(first, batch.shown[len(batch.target) :])
    one_padded = {**step, "labeled": step["labeled"]._replace(shown=None)}
    shown = make_learner(method)._assemble(one_padded).shown
    assert shown is not None
    assert bool(shown[: len(batch.target)].all())
    assert torch.equal(shown[len(batch.target) :], batch.shown[len(batch.target) :])


def test_a_training_withholds_labels() -> None:
    """Half of the labels for each model: it ends elsewhere than one that learns from all."""
    ends = []
    for withhold in (0.0, 0.5):
        torch.manual_seed(0)
        method = make_method("gct", detector="cues", withhold=withhold)
        fit(make_learner(method), TinySource(), max_steps=3)
        ends.append(torch.cat([weight.detach().flatten() for weight in method.models[0].parameters()]))
    assert not torch.equal(*ends)
