"""The head that every backbone of this package shares: a pooling of `timm_3g.list_pools()`, a Linear, a record of both."""

from typing import Any

from timm.layers import get_device_dtype
from torch import Tensor, nn
from torch.nn import functional as F

from timm_3g.compat import MODEL_ARGS
from timm_3g.layers import create_global_pool, pool_options

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)  # timm's fused ones are of these


def pop_pool_options(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take the options of poolings (num_iters, eps, triangle, ...) out of kwargs and return them."""
    return {name: kwargs.pop(name) for name in pool_options() & kwargs.keys()}


class SecondOrderHead(nn.Module):
    """Mixed into a model class of timm, before it in the bases: sets its pooling and classifier, and resets them.

    The model is built with num_classes=0 and global_pool='', then calls `_set_head`. It has timm's `num_features` (channels of
    the unpooled features) and `drop_rate`. `classifier_name` is what timm calls its Linear, as 'classifier' in its cfg, and
    `classify` hands it to `layers.classify`: by name, because TorchScript has no getattr.
    """

    classifier_name = 'fc'
    drop_rate: float

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
        **dd: Any,
    ) -> None:
        """Build the head, and give every BatchNorm of the model its momentum and eps (None: PyTorch's 0.1 and 1e-5)."""
        self.num_classes = num_classes
        self.reduce_dim = reduce_dim or 0
        self.bn_momentum = 0.1 if bn_momentum is None else bn_momentum
        self.bn_eps = 1e-5 if bn_eps is None else bn_eps
        self._set_pool(global_pool, options, **dd)
        self._set_classifier(**dd)
        self._set_batch_norm(self)

    def _set_pool(self, global_pool: str, options: dict[str, Any], **dd: Any) -> None:
        features: Any = self.num_features
        self.global_pool = create_global_pool(global_pool, features, self.reduce_dim, **options, **dd)
        pool: Any = self.global_pool.train(self.training)
        self._set_batch_norm(pool)
        self.head_hidden_size = pool.out_features
        # What timm writes to config.json: by itself only what the caller passed, here all that settles the function.
        foreign = pool_options()
        kept = {k: v for k, v in getattr(self, MODEL_ARGS, {}).items() if k not in foreign}
        settled = {'global_pool': global_pool, 'reduce_dim': self.reduce_dim, 'bn_eps': self.bn_eps, **pool.options}
        setattr(self, MODEL_ARGS, {**kept, **settled})

    def _set_batch_norm(self, module: nn.Module) -> None:
        for batch_norm in module.modules():
            if isinstance(batch_norm, BATCH_NORMS):
                batch_norm.momentum, batch_norm.eps = self.bn_momentum, self.bn_eps

    def _set_classifier(self, **dd: Any) -> None:
        has_classes = self.num_classes > 0
        classifier = nn.Linear(self.head_hidden_size, self.num_classes, **dd) if has_classes else nn.Identity()
        setattr(self, self.classifier_name, classifier.train(self.training))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features (B, C, H, W) to logits (B, num_classes), or to the vector (B, head_hidden_size) before the classifier."""
        x = self.global_pool(x)
        if self.drop_rate > 0.0:
            x = F.dropout(x, p=float(self.drop_rate), training=self.training)
        return x if pre_logits else self.classify(x)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """New classifier, and a new pooling only if another one is named.

        Args:
            num_classes: 0 for no classifier.
            global_pool: None or the current name keeps the pooling with its learned reduction and re-weighting; '' gives 4-D
                features; another name builds that pooling with its default options at this model's reduce_dim.

        Raises:
            ValueError: unknown global_pool.
        """
        dd = get_device_dtype(self)
        self.num_classes = num_classes
        if global_pool is not None and global_pool != self.global_pool.pool_type:
            self._set_pool(global_pool, {}, **dd)
        self._set_classifier(**dd)
