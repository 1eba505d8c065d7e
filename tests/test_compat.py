"""Private names of other libraries still mean what `timm_3g/compat.py` takes them for."""

import json

import timm
from common import SMALL

from timm_3g import compat

# timm -----------------------------------------------------------------------------------------------------------------


def test_timm_writes_the_config_alone(tmp_path):
    hint = 'timm has changed models._hub.save_config_for_hf: find its successor and put it into compat.write_timm_config.'
    net = timm.create_model(SMALL, num_classes=3)
    timm.models.save_for_hf(net, str(tmp_path / 'public'), safe_serialization=True)
    compat.write_timm_config(net, tmp_path / 'config.json')
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ['config.json'], hint
    written, public = (json.loads((folder / 'config.json').read_text()) for folder in (tmp_path, tmp_path / 'public'))
    assert written == public, hint
