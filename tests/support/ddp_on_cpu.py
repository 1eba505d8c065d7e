"""For `--device-modules ddp_on_cpu` in tests: timm hands DDP a device index, which DDP refuses for CPU devices."""

from functools import wraps

from timm.task.classification import ClassificationTask

original = ClassificationTask.prepare_distributed


@wraps(original)
def prepare_distributed(self, device_ids=None, **kwargs):
    return original(self, device_ids=None, **kwargs)


ClassificationTask.prepare_distributed = prepare_distributed
