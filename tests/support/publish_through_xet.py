"""Publish and load through the Xet path, for test_hub_xet.py. In a process of its own: the client reads its settings once.

python publish_through_xet.py FOLDER writes FOLDER/result.json; exit code NO_XET: a plain upload by the client itself fails.
"""

import json
import os
import sys

NO_XET = 77


def main(folder: str) -> int:
    try:
        import fakexet
    except ModuleNotFoundError:
        return NO_XET
    os.mkdir(f'{folder}/cas')
    hub = fakexet.XetHub(f'{folder}/cas').__enter__()
    os.environ |= {'HF_ENDPOINT': hub.url, 'HF_HOME': f'{folder}/home', 'HF_TOKEN': 'hf_acme', 'HF_HUB_DISABLE_XET': '0'}
    from huggingface_hub import HfApi

    try:
        HfApi().create_repo('acme/probe')
        HfApi().upload_file(repo_id='acme/probe', path_or_fileobj=bytes(100_000), path_in_repo='blob.bin')
        assert any('/xet-write-token' in request[1] for request in hub.requests)
    except Exception as error:
        print(error, file=sys.stderr)
        return NO_XET
    import timm
    import torch

    from timm_3g.__main__ import main as timm_3g

    torch.manual_seed(0)
    model = timm.create_model('resnet10_mini_3g', num_classes=3).eval()
    torch.save(model.state_dict(), f'{folder}/best.pth')
    for _ in range(2):
        assert timm_3g(['publish', f'{folder}/best.pth', '--repo', 'acme/resnet10_mini_3g.birds']) == 0
    again = timm.create_model('hf-hub:acme/resnet10_mini_3g.birds', pretrained=True).eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        equal = torch.equal(again(x), model(x))
    commits = len(hub.repos['acme/resnet10_mini_3g.birds'].commits)
    with open(f'{folder}/result.json', 'w') as file:
        json.dump({'equal': equal, 'commits': commits, 'requests': [request[:2] for request in hub.requests]}, file)
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1]))
