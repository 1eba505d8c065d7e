"""Optional: real Xet transfers against FakeHub through hf_xet's own on-disk CAS ("local://DIR")."""

import glob
import shutil
import struct
import tempfile
import time
from pathlib import Path

import hf_xet
from fakehub import ID, ROUTES, FakeHub, Handler


def merkle_hex(b: bytes) -> str:  # MerkleHash: four little-endian u64 printed big-endian
    return ''.join(f'{x:016x}' for x in struct.unpack('<4Q', b))


def shard_files(path):
    """Yield (sha256, xet_hash, size) of the file-info section of an .mdb shard."""
    b, pos = Path(path).read_bytes(), 48  # header: 32 tag, u64 version, u64 footer size
    while b[pos : pos + 32] != b'\xff' * 32:
        h, flags, n = b[pos : pos + 32], *struct.unpack_from('<II', b, pos + 32)
        pos += 48
        size = sum(struct.unpack_from('<I', b, pos + 48 * i + 36)[0] for i in range(n))
        pos += 48 * n * (2 if flags & 0x80000000 else 1)  # segments (+ verification hashes)
        if flags & 0x40000000:  # metadata extension: sha256
            yield merkle_hex(b[pos : pos + 32]), merkle_hex(h), size
            pos += 48


class XetHub(FakeHub):
    def __init__(self, cas_dir, **kw):
        super().__init__(**kw)
        self.cas_dir, self.cas, self.xet = str(cas_dir), f'local://{cas_dir}', {}

    def pull(self):  # make every file that reached the CAS available as an LFS object
        new = [
            f
            for s in glob.glob(f'{self.cas_dir}/**/xorbs/shards/*.mdb', recursive=True)
            for f in shard_files(s)
            if f[0] not in self.xet
        ]
        if new:
            with tempfile.TemporaryDirectory() as d:  # a copy: the client holds the lock of the original
                shutil.copytree(self.cas_dir, f'{d}/cas')
                with hf_xet.XetSession().new_file_download_group(endpoint=f'local://{d}/cas') as g:
                    for sha, xh, size in new:
                        g.start_download_file(hf_xet.XetFileInfo(xh, size), f'{d}/{sha}')
                for sha, xh, _ in new:
                    self.lfs[sha], self.xet[sha] = Path(d, sha).read_bytes(), xh


def xet_token(self, repo, kind, rev):
    self.repo(repo, write=kind == 'write')
    exp = int(time.time()) + 3600
    self.send(
        200,
        {'accessToken': 't', 'exp': exp, 'casUrl': self.hub.cas},
        {'X-Xet-Cas-Url': self.hub.cas, 'X-Xet-Access-Token': 't', 'X-Xet-Token-Expiration': str(exp)},
    )


def commit(self, repo, rev):
    self.hub.pull()
    return plain_commit(self, repo, rev)


def resolve(self, repo, rev, path):
    r, sha = self.rev(repo, rev)
    b = r.commits[sha]['files'].get(path)
    if b and b.lfs and b.sha256 in self.hub.xet:
        self.hub.extra = {
            'X-Xet-Hash': self.hub.xet[b.sha256],
            'Link': f'<{self.hub.url}/api/models/{repo}/xet-read-token/{sha}>; rel="xet-auth"',
        }
    return plain_resolve(self, repo, rev, path)


plain_commit, plain_resolve, plain_send = Handler.commit, Handler.resolve, Handler.send


def send(self, status, body=b'', headers=None):
    extra, self.hub.extra = getattr(self.hub, 'extra', None), None
    return plain_send(self, status, body, {**(headers or {}), **(extra or {})})


Handler.send = send
ROUTES[:] = [(m, p, {plain_commit: commit, plain_resolve: resolve}.get(f, f)) for m, p, f in ROUTES]
ROUTES.append(('GET', rf'/api/models/{ID}/xet-(?P<kind>read|write)-token/(?P<rev>[^/]+)', xet_token))
