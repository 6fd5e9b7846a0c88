"""The one prediction control: what root's partition and filesystem will do, by meaning."""

from __future__ import annotations

from collections.abc import Mapping

from cloudlab.course.prediction import FILLS, LAYERS, STAYS, Prediction
from cloudlab.errors import CloudlabError
from cloudlab.units import format_bytes
from cloudlab.widgets.native import Form, field

_SIZE = "size"


class PredictionForm(Form):
    """Both predictions: stays, fills, or another size, which is then typed."""

    def __init__(self) -> None:
        fields = []
        for layer in LAYERS:
            fields += [
                field(layer, "select", f"The {layer} will", choices=_choices(layer, "")),
                field(f"{layer}_size", "text", f"Size of the {layer}", help="such as 19.9G"),
            ]
        super().__init__("Your prediction: after the boot", fields)
        self.on_values(self._show)
        self._show()

    def about(self, sizes: Mapping[str, int]) -> None:
        """Name the sizes in bytes that the partition and the filesystem start from."""
        known = {layer: format_bytes(size_bytes) for layer, size_bytes in sizes.items()}
        self.change(**{one: {"choices": _choices(one, known.get(one, ""))} for one in LAYERS})

    def set(self, prediction: Prediction) -> None:
        """Fill in a prediction; an empty one empties the form."""
        values: dict[str, str] = {}
        for layer in LAYERS:
            text = prediction.of(layer)
            meant = text in ("", STAYS, FILLS)
            values |= {layer: text if meant else _SIZE, f"{layer}_size": "" if meant else text}
        self.values = values

    def prediction(self) -> Prediction:
        """Return the prediction; empty as long as half of it is missing.

        Raises
        ------
        CloudlabError
            If a size cannot be understood.
        """
        texts = {}
        for layer in LAYERS:
            chosen = str(self.values[layer])
            text = str(self.values[f"{layer}_size"]).strip() if chosen == _SIZE else chosen
            # Each half is checked, whether the other one is there or not.
            if text:
                Prediction(**{**dict.fromkeys(LAYERS, STAYS), layer: text})
            texts[layer] = text
        return Prediction(**texts) if all(texts.values()) else Prediction()

    def problem(self) -> str:
        """Return what is missing or wrong; empty if the prediction can be used."""
        try:
            return "" if self.prediction().partition else "Predict both to unlock Boot."
        except CloudlabError as error:
            return str(error)

    def _show(self) -> None:
        problem = self.problem()
        for layer in LAYERS:
            note = problem if f"for the {layer}" in problem else "such as 19.9G"
            self.change(**{f"{layer}_size": {"hidden": self.values[layer] != _SIZE, "help": note}})


def _choices(layer: str, size: str) -> list[tuple[str, str]]:
    room = "the disk" if layer == "partition" else "its partition"
    at = f" at {size}" if size else ""
    return [
        ("", "choose ..."), (STAYS, f"stay{at}"), (FILLS, f"fill {room}"),
        (_SIZE, "have another size"),
    ]  # fmt: skip
