"""The head that every backbone of this package shares: pooling, normalization, classifier, and a record of them."""

from collections.abc import Mapping
from typing import Any

import torch
from timm.layers import get_device_dtype
from torch import Tensor, nn
from torch.nn import functional as F

from timm_3g.checkpoints.function import differing_options
from timm_3g.compat import MODEL_ARGS
from timm_3g.layers import SecondOrderPool2d, create_global_pool, pool_options
from timm_3g.layers.head_norm import checked_head_norm, normalize

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)  # timm's fused ones are of these


def pop_pool_options(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take the options of poolings (num_iters, eps, triangle, ...) out of kwargs and return them."""
    return {name: kwargs.pop(name) for name in pool_options() & kwargs.keys()}


class SecondOrderHead(nn.Module):
    """Mixed into a model class of timm, before it in the bases: sets its pooling and classifier, and resets them.

    The model is built with num_classes=0 and global_pool='', then calls `_set_head`. It has timm's `num_features` (channels of
    the unpooled features) and `drop_rate`. `classifier_name` is what timm calls its classifier, as 'classifier' in its cfg, and
    `classify` hands it to `layers.classify`: by name, because TorchScript has no getattr.

    >>> import timm, torch, timm_3g
    >>> model = timm.create_model('resnet18_3g', num_classes=10)
    >>> model.reset_classifier(5, 'isqrt')
    >>> isinstance(model, SecondOrderHead), model.global_pool.pool_type, model(torch.randn(2, 3, 64, 64)).shape
    (True, 'isqrt', torch.Size([2, 5]))
    """

    classifier_name = 'fc'
    batch_norm: tuple[float | None, float | None] = (0.1, 1e-5)  # momentum and eps where the caller names none. None: as built
    drop_rate: float
    head_init = 'open'
    normalizes = False  # until there is a head: timm's constructor calls init_weights before

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A model that was pickled as a whole before there was a `head_norm` has none."""
        super().__setstate__(state)  # type: ignore[misc]
        if 'head_norm' not in self._modules:  # type: ignore[attr-defined]
            self.has_head_norm = self.normalizes = False
            self.head_norm: nn.Module = nn.Identity()

    def classify(self, x: Tensor) -> Tensor:
        """The vector (B, head_hidden_size) to logits (B, num_classes)."""
        raise NotImplementedError

    def _set_head(
        self,
        num_classes: int,
        global_pool: str,
        options: dict[str, Any],
        reduce_dim: int | None,
        bn_momentum: float | None,
        bn_eps: float | None,
        head_init: str = 'open',
        head_norm: bool | float = False,
        **dd: Any,
    ) -> None:
        """Build the head, and give every BatchNorm of the model its momentum and eps (None: those of `batch_norm`)."""
        self.num_classes = num_classes
        self.reduce_dim = reduce_dim or 0
        self.head_init = head_init
        self.has_head_norm = checked_head_norm(head_norm) is not False
        self.head_norm_start = float(head_norm)
        self.bn_momentum = self.batch_norm[0] if bn_momentum is None else bn_momentum
        self.bn_eps = self.batch_norm[1] if bn_eps is None else bn_eps
        self._set_pool(global_pool, options, **dd)
        self._set_classifier(**dd)
        self._set_batch_norm(self)

    def _set_pool(self, global_pool: str, options: dict[str, Any], **dd: Any) -> None:
        pool: Any = self._create_pool(global_pool, options, **dd)
        if self.has_head_norm and global_pool == 'fbn':
            raise ValueError("head_norm must be left out for global_pool='fbn': its classifier takes positions, not a vector.")
        self.normalizes = self.has_head_norm and bool(global_pool)
        # Of vectors (B, D, 1, 1): timm freezes and splits such BatchNorms alone.
        norm = nn.BatchNorm2d(pool.out_features, **dd) if self.normalizes else nn.Identity()
        self.global_pool, self.head_norm = pool.train(self.training), norm.train(self.training)
        self._set_batch_norm(pool)
        self._set_batch_norm(norm)
        self.start_head_norm()
        self.head_hidden_size = pool.out_features
        # What timm writes to config.json: by itself only what the caller passed, here all that settles the function.
        foreign = pool_options()
        kept = {k: v for k, v in getattr(self, MODEL_ARGS, {}).items() if k not in foreign}
        setattr(self, MODEL_ARGS, {**kept, 'global_pool': global_pool, **self.function_options()})

    def _create_pool(self, global_pool: str, options: dict[str, Any], **dd: Any) -> nn.Module:
        features: Any = self.num_features
        return create_global_pool(global_pool, features, self.reduce_dim, head_init=self.head_init, **options, **dd)

    @torch.jit.ignore
    def function_options(self) -> dict[str, Any]:
        """What settles the function beside the architecture, the name of the pooling and those of the weights. Plain data."""
        pool: Any = self.global_pool
        return {'reduce_dim': self.reduce_dim, 'bn_eps': self.bn_eps, **pool.options}

    @torch.jit.ignore
    def differing_options(self, recorded: Mapping[str, Any]) -> list[str]:
        """What is recorded of a function that is not this model's, as texts."""
        return differing_options(recorded, self.function_options())

    def start_head_norm(self) -> None:
        """Set the weights of the BatchNorm on the vector to where they start."""
        if self.normalizes:
            norm: Any = self.head_norm
            nn.init.constant_(norm.weight, self.head_norm_start)

    def _set_batch_norm(self, module: nn.Module) -> None:
        for batch_norm in module.modules():
            if isinstance(batch_norm, BATCH_NORMS):
                batch_norm.momentum = batch_norm.momentum if self.bn_momentum is None else self.bn_momentum
                batch_norm.eps = batch_norm.eps if self.bn_eps is None else self.bn_eps

    def _set_classifier(self, **dd: Any) -> None:
        pool: Any = self.global_pool
        if isinstance(pool, SecondOrderPool2d):
            classifier = pool.create_classifier(self.num_classes, self.drop_rate, **dd)
        else:
            classifier = nn.Linear(pool.out_features, self.num_classes, **dd) if self.num_classes > 0 else nn.Identity()
        self.scores_positions = isinstance(pool, SecondOrderPool2d) and pool.keeps_positions
        setattr(self, self.classifier_name, classifier.train(self.training))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features (B, C, H, W) to logits (B, num_classes), or to the vector (B, head_hidden_size) before the classifier.

        Scripted, 'fbn' gives the positions that its classifier takes in place of the vector.
        """
        return self._from_vector(self.global_pool(x), pre_logits)

    def _from_vector(self, x: Tensor, pre_logits: bool) -> Tensor:
        x = self._normalized(x)
        if self.drop_rate > 0.0 and not self.scores_positions:  # such a classifier drops by itself
            x = F.dropout(x, p=float(self.drop_rate), training=self.training)
        if not pre_logits:
            return self.classify(x)
        return x if torch.jit.is_scripting() or not self.scores_positions else self._vector(x)

    def _normalized(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():  # alone in its `if`, so that TorchScript does not compile the rest
            return self.head_norm(x[:, :, None, None]).flatten(1) if self.normalizes else x
        return normalize(self.head_norm, x) if self.normalizes else x

    @torch.jit.unused
    def _vector(self, x: Tensor) -> Tensor:
        pool: Any = self.global_pool
        return pool.vector(x)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """New classifier, and a new pooling with a new normalization only if another one is named.

        Args:
            num_classes: 0 for no classifier.
            global_pool: None or the current name keeps the pooling with its learned reduction and re-weighting; '' gives 4-D
                features; another name builds that pooling with its default options at this model's reduce_dim.

        Raises:
            ValueError: unknown global_pool.
        """
        dd = get_device_dtype(self)
        if global_pool is not None and global_pool != self.global_pool.pool_type:
            self._set_pool(global_pool, {}, **dd)
        self.num_classes = num_classes
        self._set_classifier(**dd)
