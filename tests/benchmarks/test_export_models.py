"""Records of exported networks."""

from benchmarks.speed.export_models import shown, tried

from semipix.errors import SemipixError
from semipix.inference.export_network import Deployed


def test_a_network_that_cannot_be_exported_has_the_reason_in_its_record() -> None:
    def make() -> Deployed:
        raise SemipixError("takes only one size")

    found = list(tried("mine", make, ["onnx", "torch-export"]))
    assert found == [
        {"model": "mine", "format": format, "refused": "takes only one size"} for format in ("onnx", "torch-export")
    ]
    assert shown(found[0]) == "refused"


def test_differences_are_shown_as_powers_of_ten() -> None:
    assert shown({"prediction": 3.4e-05}) == "3e-05"
    assert shown({"prediction": 0.0, "error": 2.1e-08}) == "0, of the error map 2e-08"
