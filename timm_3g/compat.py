"""Private names of other libraries that this package uses, each with its reason. Nothing else uses a private name.

Every library has its section. `tests/test_compat.py` fails with an instruction when a release changes one of these names.
"""

from pathlib import Path

from torch import nn

# timm -----------------------------------------------------------------------------------------------------------------


def write_timm_config(model: nn.Module, file: Path) -> None:
    """Write config.json of a model as timm does.

    timm's public `save_for_hf` does this, too, but always writes the weights with it, and without the header that records which
    function they belong to. The weights would be written twice.
    """
    from timm.models._hub import save_config_for_hf  # here, because ops may not import timm

    save_config_for_hf(model, str(file))
