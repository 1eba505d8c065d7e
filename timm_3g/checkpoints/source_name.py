"""Names of models with a source: `local-dir:FOLDER` and `hf-hub:ORG/NAME`, in all spellings that timm takes."""

from typing import Any

from timm.models import parse_model_name


def split_source(model: Any) -> tuple[str, str]:
    """('local-dir' or 'hf-hub', what follows) of the name that a run was given. ('', '') for a name of timm's registry.

    A value that timm takes for no name is ('', ''), too: it comes from a file.

    >>> split_source('local-dir:/runs/12:30'), split_source('HF_Hub:me/birds'), split_source('resnet50_3g')
    (('local-dir', '/runs/12:30'), ('hf-hub', 'me/birds'), ('', ''))
    """
    try:
        source, name = parse_model_name(model) if isinstance(model, str) else (None, '')
    except ValueError:
        return '', ''
    return (source, name) if source else ('', '')
