"""The text of a model card, from the facts of its source and the model itself."""

from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from huggingface_hub import EvalResult, ModelCardData
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from timm_3g.checkpoints import WEIGHTS
from timm_3g.compat import MODEL_ARGS
from timm_3g.layers import pool_paper
from timm_3g.layers.create_pool import POOLS

from .marks import BEGIN, END, PROSE

NO_LICENCE = 'The authors granted no licence with these weights. Ask them before you redistribute the weights.'


def render(net: nn.Module, key: str, facts: Mapping[str, Any], prose: str, repo: str, run: Sequence[str] = ()) -> str:
    """The card without any hand-written text.

    Args:
        net: the model, in eval mode. On the meta device its statistics cost nothing.
        key: <arch>.<tag>.
        facts: checked facts (see `check_facts`).
        prose: the text of the source.
        repo: ORG/NAME for the snippets.
        run: names of the files of the run that the folder holds.
    """
    results = [
        EvalResult(
            task_type='image-classification',
            dataset_type=metric.get('dataset_id') or metric['dataset'],
            dataset_name=metric['dataset'],
            dataset_split=metric.get('split'),
            metric_type='accuracy',
            metric_name=f'Top-{k}',
            metric_value=metric[f'top{k}'],
            # The Hub accepts a name only with an address.
            source_name=metric['measured_by'] if metric.get('source_url') else None,
            source_url=metric.get('source_url'),
        )
        for metric in facts['metrics'] or []
        for k in (1, 5)
        if metric.get(f'top{k}') is not None
    ]
    data = ModelCardData(
        tags=['image-classification', 'timm', 'timm_3g'],
        library_name='timm',
        pipeline_tag='image-classification',
        license=facts['license'],
        base_model=facts.get('base_model'),
        datasets=facts['datasets'] or None,
        model_name=key,
        eval_results=results or None,
        timm_3g={name: fact for name, fact in facts.items() if name not in ('license', 'datasets', 'base_model')},
    )
    sections = [
        BEGIN,
        f'# Model card for {key}',
        _details(net, facts, run),
        _results(facts),
        _usage(net, repo),
        '\n'.join([PROSE[0], prose, PROSE[1]]) if prose else '',
        '## Known faults\n\n' + '\n'.join(f'- {fault}' for fault in facts['known_faults'] or ['Not documented.']),
        f'## Citation\n\n{_citation(net)}',
        END,
    ]
    return f'---\n{data.to_yaml()}\n---\n' + '\n\n'.join(filter(None, sections)) + '\n'


def _details(net: Any, facts: Mapping[str, Any], run: Sequence[str]) -> str:
    stats = model_stats(net)
    pool = ', '.join(f'{name}={value!r}' for name, value in net.global_pool.options.items())
    norm = ', a BatchNorm behind them' if getattr(net, 'has_head_norm', False) else ''
    licence = facts['license'] + (f', {facts["license_note"]}' if facts.get('license_note') else '')
    lines = {
        'Model Type': 'image classification / feature backbone',
        'Model Stats': ', '.join(f'{name}: {value}' for name, value in stats.items()),
        'Global pooling': f'`{net.global_pool.pool_type}`, {net.head_hidden_size:,} features ({pool or "no options"}){norm}',
        'Base model': facts.get('base_model'),
        'Dataset': ', '.join(facts['datasets'] or ['not stated']),
        'Made by': facts.get('made_by') or 'not stated',
        'Original': facts.get('origin'),
        'Licence': licence + (f'. {NO_LICENCE}' if facts['license'] == 'unknown' and facts.get('origin') else ''),
        'Training': facts['recipe'] or 'recipe not stated',
        'Run': ', '.join(f'[{name}]({name})' for name in run) or None,
        'Hardware': facts['hardware'] or 'not stated',
        'Hours': facts['hours'] if facts['hours'] is not None else 'not stated',
        'Seeds': ', '.join(map(str, facts['seeds'] or [])) or 'not stated',
        'File': f'{WEIGHTS}, sha256 `{facts["sha256"]}`',
    }
    items = [f'- **{name}:** {_one_line(value)}' for name, value in lines.items() if value is not None]
    return '## Model Details\n\n' + '\n'.join(items)


def model_stats(net: Any) -> dict[str, str]:
    """Parameters, multiply-adds of convolutions and products, outputs of convolutions and Linears, for one image."""
    cfg = net.pretrained_cfg
    activations = 0

    def count(module: nn.Module, args: Any, output: torch.Tensor) -> None:
        nonlocal activations
        activations += output.numel()

    hooks = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    parameter = next(net.parameters())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, *cfg['input_size'], device=parameter.device, dtype=parameter.dtype))
    for hook in hooks:
        hook.remove()
    tested = cfg.get('test_input_size')
    return {
        'Params (M)': f'{sum(p.numel() for p in net.parameters()) / 1e6:.1f}',
        'GMACs': f'{counter.get_total_flops() / 2e9:.2f}',
        'Activations (M)': f'{activations / 1e6:.1f}',
        'Image size': f'train = {_side(cfg["input_size"])}, test = {_side(tested)}' if tested else _side(cfg['input_size']),
    }


def _side(size: Sequence[int]) -> str:
    return ' x '.join(map(str, size[1:]))


def _results(facts: Mapping[str, Any]) -> str:
    rows = []
    for metric in facts['metrics'] or []:
        words = [metric['dataset'], metric.get('split'), metric.get('protocol')]
        cells = [*words, _percent(metric, 'top1'), _percent(metric, 'top5'), metric['measured_by']]
        rows.append(f'| {" | ".join(_one_line("" if cell is None else cell).replace("|", chr(92) + "|") for cell in cells)} |')
    if not rows:
        return '## Results\n\nNot stated.'
    head = '| data | split | protocol | top-1 | top-5 | measured by |\n| --- | --- | --- | --- | --- | --- |\n'
    return '## Results\n\nAccuracy in %.\n\n' + head + '\n'.join(rows)


def _one_line(value: Any) -> str:
    """Text of anybody in one line of Markdown: no line of its own, no tag."""
    return ' '.join(str(value).split()).replace('<', '&lt;')


def _percent(metric: Mapping[str, Any], name: str) -> str:
    return f'{metric[name]:.2f}' if metric.get(name) is not None else ''


def _usage(net: Any, repo: str) -> str:
    """Complete snippets. Classification only if there is a classifier."""
    tested = net.pretrained_cfg.get('test_input_size')
    of_size = ', use_test_size=True' if tested else ''
    image = torch.empty(1, *(tested or net.pretrained_cfg['input_size']))
    channels = image.shape[1]
    options = {**getattr(net, MODEL_ARGS), 'in_chans': channels, 'num_classes': 0}
    arch = net.pretrained_cfg['architecture']
    try:
        extractor = timm.create_model(arch, features_only=True, device='meta', **options).eval()
    except IndexError:  # what timm raises for a network that has fewer maps than it asks for
        extractor = None
    with torch.no_grad():
        maps = ''.join(f'\n    #   {tuple(map_.shape)}' for map_ in extractor(image.to('meta'))) if extractor else ''
        pooled = net.forward_features(image.zero_().to(next(net.parameters()).device))
    features = ' and '.join(str(tuple(map_.shape)) for map_ in (pooled if isinstance(pooled, tuple) else (pooled,)))
    classification = f"""### Image Classification

```python
{_open(repo, '', of_size, channels)}
with torch.inference_mode():
    logits = model(image)  # (1, {net.num_classes})
percent, classes = logits.softmax(dim=1).mul(100).topk({min(5, net.num_classes)})
```

"""
    extraction = f"""### Feature Map Extraction

```python
{_open(repo, ', features_only=True', of_size, channels)}
with torch.inference_mode():
    for feature_map in model(image):
        print(feature_map.shape){maps}
```

"""
    return f"""## Model Usage

Install the package timm_3g. Importing it registers the architecture in timm.

{classification if net.num_classes else ''}{extraction if extractor else ''}### Image Embeddings

```python
{_open(repo, ', num_classes=0', of_size, channels)}
with torch.inference_mode():
    embedding = model(image)  # (1, {net.head_hidden_size}): the pooled vector
    features = model.forward_features(image)  # {features}, unpooled
    same = model.forward_head(features, pre_logits=True)
```"""


def _open(repo: str, options: str, of_size: str, channels: int) -> str:
    model = f"model = timm.create_model('hf-hub:{repo}', pretrained=True{options}).eval()"
    if channels not in (1, 3):
        return f"""import timm
import timm_3g
import torch

{model}
size = timm.data.resolve_model_data_config(model{of_size})['input_size']
image = torch.rand(1, *size)  # {channels} channels, normalized as in training"""
    return f"""from urllib.request import urlopen

import timm
import timm_3g
import torch
from PIL import Image

url = 'https://huggingface.co/datasets/huggingface/documentation-images/resolve/main/beignets-task-guide.png'
picture = Image.open(urlopen(url)).convert('{'RGB' if channels == 3 else 'L'}')
{model}
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model{of_size}), is_training=False)
image = transform(picture).unsqueeze(0)"""


def _citation(net: Any) -> str:
    name = net.global_pool.pool_type
    if name not in POOLS:
        return 'This pooling has no paper of its own.'
    paper = pool_paper(name)
    return f'[{paper.title}]({paper.url}), {paper.where}.\n\n```bibtex\n{paper.bibtex()}\n```'
