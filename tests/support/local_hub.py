"""A Hugging Face Hub on this machine for the whole test run: no test reaches the real one, nor the caches of whoever runs it.

huggingface_hub reads these variables once, when it is imported: so import this module first.
"""

import os
import tempfile

from fakehub import FakeHub

TOKENS = {'hf_acme': 'acme', 'hf_other': 'other'}
HUB = FakeHub(TOKENS).__enter__()

os.environ |= {
    'HF_ENDPOINT': HUB.url,
    'HF_HOME': tempfile.mkdtemp(prefix='timm_3g.hf.'),
    'HF_HUB_DISABLE_XET': '1',  # test_hub_xet.py has it on, in a process of its own
    'HF_HUB_DISABLE_TELEMETRY': '1',
    'HF_HUB_DISABLE_PROGRESS_BARS': '1',
}
for name in ('HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN', 'HF_HUB_OFFLINE', 'HF_HUB_CACHE', 'TIMM_3G_HUB_OWNER'):
    os.environ.pop(name, None)
