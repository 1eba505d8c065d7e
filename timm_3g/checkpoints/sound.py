"""Numbers that no model can use: what would answer with NaN, or with something finite and wrong."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from timm_3g.utils.abbreviated import abbreviated
from timm_3g.utils.numbers import is_finite


class NotFiniteError(ValueError):
    """Weights, statistics or logits are NaN or infinite: what a training run leaves that diverged.

    >>> net = nn.Linear(1, 1)
    >>> _ = nn.init.constant_(net.weight, float('nan'))
    >>> require_sound(net)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    timm_3g.checkpoints.sound.NotFiniteError: Weights must be finite, and variances not negative; these are not: weight. The ...
    """


CROP_MODES = ('center', 'squash', 'border')


def require_sound(net: nn.Module) -> None:
    """Raise NotFiniteError where weights or statistics are NaN or infinite, or a variance is negative.

    >>> require_sound(nn.BatchNorm2d(4))
    """
    statistics = {name: value for name, value in net.named_buffers() if name.endswith(('running_mean', 'running_var'))}
    wrong = [
        name
        for name, value in {**dict(net.named_parameters()), **statistics}.items()
        if not value.isfinite().all() or (name.endswith('running_var') and (value < 0).any())
    ]
    if wrong:
        raise NotFiniteError(
            f'Weights must be finite, and variances not negative; these are not: {abbreviated(wrong)}. The file is damaged, or '
            f'the training run diverged. Take an earlier checkpoint.'
        )


def require_pixels(cfg: Mapping[str, Any]) -> None:
    """Raise ValueError where mean, std, crop_pct or crop_mode of a pretrained_cfg are none that images can be prepared with.

    >>> require_pixels({'mean': (0.5, 0.5, 0.5), 'std': (0.2, 0.0, 0.2)})
    Traceback (most recent call last):
    ValueError: std must be finite and positive; got [0.2, 0.0, 0.2].
    """
    if cfg.get('crop_mode') not in (None, '', *CROP_MODES):
        raise ValueError(f'crop_mode must be one of {", ".join(CROP_MODES)}; got {cfg["crop_mode"]!r:.80}.')
    for name, positive in (('mean', False), ('std', True), ('crop_pct', True), ('test_crop_pct', True)):
        values = cfg.get(name)
        each = values if isinstance(values, list | tuple) else [] if values is None else [values]
        if not all(is_finite(value) and (value > 0 or not positive) for value in each):
            raise ValueError(f'{name} must be finite{" and positive" if positive else ""}; got {[*each]!r:.80}.')
