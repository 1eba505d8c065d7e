"""The model card: facts and prose of one source, `hub/<arch>.<tag>.md`, rendered to the README.md of a published folder.

Between two marks a README is ours and is written anew; text outside them is other people's and is kept, as are fields of the
front matter that we do not write. The facts stand in the front matter, too, and the prose between marks of its own, so that a
README is its own source where there is no other.
"""

import argparse
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
import yaml
from huggingface_hub import EvalResult, ModelCardData
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from timm_3g.models import SHA256, WEIGHTS

from ._folder import CARD, key_of, read_json, write_text
from ._papers import PAPERS

SOURCES = Path('hub')  # in a checkout of timm_3g, one file a key
PLACEHOLDER = 'ORG'  # for the owner, until a folder is published

# What a source may state, and what it must. All else is prose.
REQUIRED = ('license', 'datasets', 'metrics', 'recipe', 'sha256', 'hardware', 'hours', 'seeds', 'known_faults')
FACTS = (*REQUIRED, 'license_note', 'made_by', 'origin')
METRIC = ('dataset', 'dataset_id', 'split', 'protocol', 'top1', 'top5', 'measured_by', 'source_url')

BEGIN = '<!-- timm_3g: begin. `timm-3g card` writes anew what is between these marks; text below the last one is kept. -->'
END = '<!-- timm_3g: end -->'
_BLOCK = re.compile(r'<!-- timm_3g: begin\b.*?-->(.*?)<!-- timm_3g: end -->', re.DOTALL)
_MARK = re.compile(r'<!-- timm_3g: (?:begin\b.*?|end )-->', re.DOTALL)
# Fields of the front matter that are ours; all others in a README are other people's, and are kept.
OWNED = {'license', 'datasets', 'library_name', 'pipeline_tag', 'model_name', 'model-index', 'timm_3g', 'tags'}
PROSE = ('<!-- timm_3g: prose -->', '<!-- timm_3g: end of prose -->')

NO_LICENCE = (
    'No licence was granted with these weights. Whether they may be passed on is for whoever publishes them to settle with '
    'their authors.'
)


def add_card_options(parser: argparse.ArgumentParser) -> None:
    """Where the facts of a card come from."""
    parser.add_argument(
        '--card', type=Path, metavar='FILE', help='source of the card (default: hub/NAME.TAG.md if it is there)'
    )
    parser.add_argument('--license', metavar='ID', help='licence of the weights, where no source states it, e.g. apache-2.0')


class _Loader(yaml.SafeLoader):
    """YAML in which `no` is Norwegian: only true and false are booleans."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != 'tag:yaml.org,2002:bool']
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver('tag:yaml.org,2002:bool', re.compile(r'^(?:true|false)$'), list('tf'))


def read_text(file: Path) -> str:
    """A Markdown file as text, without byte order mark and carriage returns.

    Raises:
        ValueError: it is not UTF-8.
    """
    try:
        return file.read_text(encoding='utf-8-sig').replace('\r\n', '\n')
    except UnicodeDecodeError as error:
        raise ValueError(f'{file} must be UTF-8: {error}') from error


def split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    """(fields, body) of a Markdown file. ({}, text) where it does not open with front matter.

    Raises:
        ValueError: front matter that is no YAML mapping.
    """
    match = re.match(r'---[ \t]*\n(.*?)^---[ \t]*(?:\n(.*)|\Z)', text, re.DOTALL | re.MULTILINE)
    if not match:
        return {}, text
    try:
        fields = yaml.load(match[1], _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f'The front matter is no YAML: {error}') from error
    if not isinstance(fields, dict | None):
        raise ValueError(f'The front matter must map names to values; got {type(fields).__name__}.')
    return fields or {}, match[2] or ''


def read_source(file: Path) -> tuple[dict[str, Any], str]:
    """(facts, prose) of a source.

    Raises:
        ValueError: a fact that is unknown or missing, or a metric without who measured it.
    """
    facts, prose = split_front_matter(read_text(file))
    unknown, missing = facts.keys() - set(FACTS), set(REQUIRED) - facts.keys()
    if unknown or missing:
        raise ValueError(
            f'{file}: unknown facts: {", ".join(sorted(unknown)) or "none"}; missing: {", ".join(sorted(missing)) or "none"}. '
            f'A source states {", ".join(REQUIRED)}, and may state {", ".join(FACTS[len(REQUIRED) :])}.'
        )
    for name in ('datasets', 'metrics', 'seeds', 'known_faults'):
        if not isinstance(facts[name], list | None):
            raise ValueError(f'{file}: {name} must be a list or null; got {facts[name]!r}.')
    for metric in facts['metrics'] or []:
        numbers = [metric[k] for k in ('top1', 'top5') if k in metric] if isinstance(metric, dict) else ['']
        named = isinstance(metric, dict) and {'dataset', 'top1', 'measured_by'} <= metric.keys() <= set(METRIC)
        if not named or not all(isinstance(n, int | float) for n in numbers):
            raise ValueError(
                f'{file}: a metric has dataset, top1 (a number), measured_by, and may have {", ".join(METRIC)}; got {metric}.'
            )
    return facts, prose.strip()


def write_card(folder: Path, *args: Any, **kwargs: Any) -> None:
    """Write README.md of an exported folder, whole or not at all: `make_card` with the same arguments."""
    write_text(folder / CARD, make_card(folder, *args, **kwargs))


def make_card(
    folder: Path,
    source: Path | None = None,
    license: str | None = None,
    training: Mapping[str, Any] | None = None,
    repo: str = '',
) -> str:
    """README.md of an exported folder: the part between the marks anew, the rest as it is in the README that is there.

    Args:
        source: facts and prose; None for hub/<key>.md in the current folder, else for those in the README that is there, else
            for what config.json and the training run tell.
        license: of the weights: identifier on the Hub. A source may state none ('unknown'), or the same.
        training: what train.py recorded (see `read_training`).
        repo: ORG/NAME for the snippets; '' for ORG/<key>.

    Returns:
        The text.

    Raises:
        FileNotFoundError: no such source.
        ValueError: the source contradicts the folder (sha256) or the licence that is asked for; or see `read_source`.
    """
    key = key_of(folder)
    readme = folder / CARD
    existing = read_text(readme) if readme.is_file() else ''
    if license and not re.fullmatch(r'[a-z0-9][a-z0-9.+-]*', license):
        raise ValueError(f'--license must be an identifier of the Hub, e.g. apache-2.0; got {license!r}.')
    source = source or next((f for f in [SOURCES / f'{key}.md'] if f.is_file()), None)
    if source:
        facts, prose = read_source(source)
    else:
        facts, prose = _facts_inside(existing) or (_facts_of_run(folder, training or {}), '')
    if license and source and facts['license'] not in ('unknown', license):
        raise ValueError(f'{source} says license: {facts["license"]}; --license says {license}. Settle it there.')
    facts['license'] = license or facts['license']
    sha256 = read_json(folder)[SHA256]
    if facts['sha256'] not in (None, 'unknown', sha256):
        raise ValueError(
            f'The card is of other weights: it says sha256 {facts["sha256"]}, and {WEIGHTS} in {folder} has {sha256}. '
            f'Name the right --card, or correct it.'
        )
    facts['sha256'] = sha256
    return merge(existing, render(folder, key, facts, prose, repo or f'{PLACEHOLDER}/{key}'))


def _facts_inside(readme: str) -> tuple[dict[str, Any], str] | None:
    """Facts and prose of a card that `render` made."""
    fields, body = split_front_matter(readme)
    if 'timm_3g' not in fields:
        return None
    prose = body.partition(PROSE[0])[2].partition(PROSE[1])[0]
    known = {'license': fields.get('license', 'unknown'), 'datasets': fields.get('datasets')}
    return {**dict.fromkeys(REQUIRED), **known, **fields['timm_3g']}, prose.strip()


def _facts_of_run(folder: Path, training: Mapping[str, Any]) -> dict[str, Any]:
    """What can be said of weights that nobody has written about."""
    cfg = read_json(folder)['pretrained_cfg']
    data = training.get('dataset') or (Path(training['data_dir']).name if training.get('data_dir') else None)
    metrics = []
    if training.get('metric') is not None and training.get('eval_metric', 'top1') == 'top1':
        split = training.get('val_split') or 'validation'
        said = f"timm's train.py, after epoch {training['epoch']} of the run; nobody has checked it"
        metrics = [{'dataset': data or 'unknown', 'split': split, 'top1': training['metric'], 'measured_by': said}]
    return {
        **dict.fromkeys(REQUIRED),
        'license': cfg.get('license') or 'unknown',
        'datasets': [data] if data else [],
        'metrics': metrics,
        'seeds': [training['seed']] if 'seed' in training else None,
        'known_faults': ['This card was made without a source: nobody has written down what these weights are bad at.'],
        **({'origin': cfg['origin_url']} if cfg.get('origin_url') else {}),
    }


def merge(existing: str, rendered: str, text: str | None = None) -> str:
    """The rendered card with what other people have written in the existing one: unknown fields, tags, text outside the marks.

    Args:
        text: instead of the existing card's text outside the marks.

    Raises:
        ValueError: marks that do not pair (see `hand_written`).
    """
    theirs, _ = split_front_matter(existing)
    ours, body = split_front_matter(rendered)
    their_tags = theirs.get('tags') or []
    tags = list(dict.fromkeys([*ours['tags'], *([their_tags] if isinstance(their_tags, str) else their_tags)]))
    fields = {**{name: value for name, value in theirs.items() if name not in OWNED}, **ours, 'tags': tags}
    front = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=1000)
    block = _BLOCK.search(body)
    assert block, 'what render or export wrote has its marks'
    kept = hand_written(existing) if text is None else text
    return f'---\n{front}---\n{block[0]}\n' + (f'\n{kept}\n' if kept else '')


def hand_written(readme: str) -> str:
    """What stands outside the marks; everything after the front matter where there are none.

    Raises:
        ValueError: marks that do not make one pair, so that nobody can tell whose text is whose.
    """
    _, body = split_front_matter(readme)
    marks = len(_MARK.findall(body))
    block = _BLOCK.search(body)
    if marks not in (0, 2) or (marks and not block):
        raise ValueError(
            f'The marks of the card ({BEGIN} and {END}) must stand there once each, in this order, or not at all; '
            f'found {marks}. Mend them by hand, or give up the text on the Hub: --replace-text.'
        )
    parts = (body[: block.start()], body[block.end() :]) if block else (body,)
    return '\n\n'.join(filter(None, (part.strip() for part in parts)))


def readdress(readme: str, repo: str) -> str:
    """The card with its snippets naming another repository; prose and other people's text stay as they are."""

    def rename(text: str) -> str:
        return re.sub(r"'hf-hub:[^'@]+'", f"'hf-hub:{repo}'", text)

    block = _BLOCK.search(readme)
    if not block:
        return readme
    snippets, mark, rest = block[0].partition(PROSE[0])
    return readme[: block.start()] + rename(snippets) + mark + rest + readme[block.end() :]


def render(folder: Path, key: str, facts: Mapping[str, Any], prose: str, repo: str) -> str:
    """The card without anything hand-written."""
    net: Any = timm.create_model(f'local-dir:{folder}', device='meta').eval()
    results = [
        EvalResult(
            task_type='image-classification',
            dataset_type=metric.get('dataset_id') or metric['dataset'],
            dataset_name=metric['dataset'],
            dataset_split=metric.get('split'),
            metric_type='accuracy',
            metric_name=f'Top-{k}',
            metric_value=metric[f'top{k}'],
            # The Hub takes a name only with an address.
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
        datasets=facts['datasets'] or None,
        model_name=key,
        eval_results=results or None,
        timm_3g={name: facts[name] for name in FACTS if name in facts and name not in ('license', 'datasets')},
    )
    sections = [
        BEGIN,
        f'# Model card for {key}',
        _details(net, facts),
        _results(facts),
        _usage(net, repo),
        '\n'.join([PROSE[0], prose, PROSE[1]]) if prose else '',
        '## Known faults\n\n' + '\n'.join(f'- {fault}' for fault in facts['known_faults'] or ['None is known.']),
        f'## Citation\n\n{_citation(net)}',
        END,
    ]
    return f'---\n{data.to_yaml()}\n---\n' + '\n\n'.join(filter(None, sections)) + '\n'


def _details(net: Any, facts: Mapping[str, Any]) -> str:
    stats = model_stats(net)
    pool = ', '.join(f'{name}={value!r}' for name, value in net.global_pool.options.items())
    licence = facts['license'] + (f', {facts["license_note"]}' if facts.get('license_note') else '')
    lines = {
        'Model Type': 'image classification / feature backbone',
        'Model Stats': '; '.join(f'{name}: {value}' for name, value in stats.items()),
        'Global pooling': f'`{net.global_pool.pool_type}`, {net.head_hidden_size:,} numbers ({pool or "no options"})',
        'Dataset': ', '.join(facts['datasets'] or ['not stated']),
        'Made by': facts.get('made_by') or 'not stated',
        'Original': facts.get('origin'),
        'Licence': licence + (f'. {NO_LICENCE}' if facts['license'] == 'unknown' and facts.get('origin') else ''),
        'Training': facts['recipe'] or 'recipe not stated',
        'Hardware': facts['hardware'] or 'not stated',
        'Hours': facts['hours'] if facts['hours'] is not None else 'not stated',
        'Seeds': ', '.join(map(str, facts['seeds'] or [])) or 'not stated',
        'File': f'{WEIGHTS}, sha256 `{facts["sha256"]}`',
    }
    items = [f'- **{name}:** {value}' for name, value in lines.items() if value is not None]
    return '## Model Details\n\n' + '\n'.join(items)


def model_stats(net: Any) -> dict[str, str]:
    """Parameters, multiply-adds of convolutions and products, outputs of convolutions and Linears; one image, any device."""
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
    return {
        'Params (M)': f'{sum(p.numel() for p in net.parameters()) / 1e6:.1f}',
        'GMACs': f'{counter.get_total_flops() / 2e9:.2f}',
        'Activations (M)': f'{activations / 1e6:.1f}',
        'Image size': ' x '.join(map(str, cfg['input_size'][1:])),
    }


def _results(facts: Mapping[str, Any]) -> str:
    rows = [
        f'| {metric["dataset"]} | {metric.get("split") or ""} | {metric.get("protocol") or ""} | {_percent(metric, "top1")} | '
        f'{_percent(metric, "top5")} | {metric["measured_by"]} |'
        for metric in facts['metrics'] or []
    ]
    if not rows:
        return '## Results\n\nNobody has stated any.'
    head = '| data | split | protocol | top-1 | top-5 | measured by |\n| --- | --- | --- | --- | --- | --- |\n'
    return '## Results\n\nAccuracy in %.\n\n' + head + '\n'.join(rows)


def _percent(metric: Mapping[str, Any], name: str) -> str:
    return f'{metric[name]:.2f}' if metric.get(name) is not None else ''


def _usage(net: Any, repo: str) -> str:
    """Snippets that run as they stand. Classification only where there is a classifier."""
    height, width = net.pretrained_cfg['input_size'][1:]
    maps = ''.join(
        f'\n    #   (1, {info["num_chs"]}, {math.ceil(height / info["reduction"])}, {math.ceil(width / info["reduction"])})'
        for info in net.feature_info
    )
    last = net.feature_info[-1]['reduction']
    features = f'(1, {net.num_features}, {math.ceil(height / last)}, {math.ceil(width / last)})'
    classification = f"""### Image Classification

```python
{_open(repo, '')}
with torch.inference_mode():
    logits = model(image)  # (1, {net.num_classes})
percent, classes = logits.softmax(dim=1).mul(100).topk({min(5, net.num_classes)})
```

"""
    return f"""## Model Usage

`pip install timm_3g`, and import it: that registers the architecture in timm.

{classification if net.num_classes else ''}### Feature Map Extraction

```python
{_open(repo, ', features_only=True')}
with torch.inference_mode():
    for feature_map in model(image):
        print(feature_map.shape){maps}
```

### Image Embeddings

```python
{_open(repo, ', num_classes=0')}
with torch.inference_mode():
    embedding = model(image)  # (1, {net.head_hidden_size}): the pooled vector
    features = model.forward_features(image)  # {features}, unpooled
    same = model.forward_head(features, pre_logits=True)
```"""


def _open(repo: str, options: str) -> str:
    return f"""from urllib.request import urlopen

import timm
import timm_3g
import torch
from PIL import Image

url = 'https://huggingface.co/datasets/huggingface/documentation-images/resolve/main/beignets-task-guide.png'
picture = Image.open(urlopen(url)).convert('RGB')
model = timm.create_model('hf-hub:{repo}', pretrained=True{options}).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
image = transform(picture).unsqueeze(0)"""


def _citation(net: Any) -> str:
    papers = [PAPERS[net.global_pool.pool_type]] if net.global_pool.pool_type in PAPERS else []
    return '\n'.join(f'```bibtex\n{paper}\n```' for paper in papers) or 'This pooling has no paper of its own.'
