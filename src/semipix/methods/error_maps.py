"""Maps of probable errors that need no calibration."""

from torch import Tensor

from semipix.methods.base import Evidence
from semipix.tasks.base import Task


def error_maps(task: Task, evidence: Evidence) -> dict[str, Tensor]:
    """The maps of a prediction by name, larger where an error is more probable.

    - `flaw`: the detector's, if there is one.
    - `softmax`: 1 - the largest class probability; `entropy`: the entropy as a share of its largest value. Only for
      classification.
    - `disagreement`: of the pair, if there is one.

    Args:
        task: decides what uncertainty and disagreement are.
        evidence: what the method knows of its prediction.

    Returns:
        (N, 1, H, W) in [0, 1] each; `flaw` may be of another size.
    """
    found = {} if evidence.flaw is None else {"flaw": evidence.flaw}
    found |= task.uncertainties(evidence.predictions[0])
    if len(evidence.predictions) > 1:
        found["disagreement"] = task.disagreement(*evidence.predictions[-2:])
    return found
