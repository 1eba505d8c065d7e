"""A tiny in-memory Hugging Face Hub for tests (stdlib only, 127.0.0.1 only).

`with FakeHub(tokens={'hf_alice': 'acme'}) as hub: os.environ['HF_ENDPOINT'] = hub.url`, before huggingface_hub is imported.
Speaks what huggingface_hub needs to create repos, commit (regular + LFS "basic"),
download (HEAD/GET resolve, Range, 302 for LFS), and describe models.  Needs HF_HUB_DISABLE_XET=1
for uploads (huggingface_hub >= 2 insists on Xet when hf_xet is installed).
"""

import base64
import hashlib
import json
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

DROP, CUT = 'drop', 'cut'  # the connection, before an answer or half-way through one
LFS_EXT = ('.safetensors', '.bin', '.pth', '.pt', '.tar', '.npz', '.onnx', '.ckpt')


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b'blob %d\0' % len(data) + data).hexdigest()


class Blob:
    def __init__(self, data: bytes, lfs: bool):
        self.data, self.lfs, self.sha256 = data, lfs, hashlib.sha256(data).hexdigest()
        ptr = f'version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(data)}\n'.encode()
        self.oid, self.ptr_size = git_oid(ptr if lfs else data), len(ptr)

    @property
    def etag(self):
        return self.sha256 if self.lfs else self.oid

    def entry(self, path):
        e = {'type': 'file', 'path': path, 'oid': self.oid, 'size': len(self.data)}
        if self.lfs:
            e['lfs'] = {'oid': self.sha256, 'size': len(self.data), 'pointerSize': self.ptr_size}
        return e


class Repo:
    def __init__(self, repo_id, private=False):
        self.id, self.private, self.refs, self.tags, self.commits, self.prs = repo_id, private, {}, {}, {}, 0
        self.commit('main', {}, 'initial commit', None)

    def commit(self, branch, files, title, parent):
        meta = {
            'title': title,
            'parent': parent,
            'files': files,
            'date': time.strftime('%Y-%m-%dT%H:%M:%S.000Z', time.gmtime()),
        }
        sha = hashlib.sha1(
            f'{self.id}{parent}{title}{len(self.commits)}{sorted((p, b.oid) for p, b in files.items())}'.encode()
        ).hexdigest()
        self.commits[sha] = meta
        self.refs[branch] = sha
        return sha

    def sha(self, rev):
        rev = re.sub(r'^refs/(heads|tags)/', '', rev)
        return self.refs.get(rev) or self.tags.get(rev) or (rev if rev in self.commits else None)

    def info(self, sha, blobs):
        files = self.commits[sha]['files']
        card = {}
        if 'README.md' in files and (m := re.match(r'---\r?\n(.*?)\r?\n---', files['README.md'].data.decode(), re.S)):
            import yaml

            card = yaml.safe_load(m[1]) or {}
        sib = [
            {'rfilename': p}
            | (
                {'size': len(b.data), 'blobId': b.oid}
                | ({'lfs': {'sha256': b.sha256, 'size': len(b.data), 'pointerSize': b.ptr_size}} if b.lfs else {})
                if blobs
                else {}
            )
            for p, b in sorted(files.items())
        ]
        return {
            '_id': '0',
            'id': self.id,
            'modelId': self.id,
            'author': self.id.split('/')[0],
            'sha': sha,
            'private': self.private,
            'disabled': False,
            'gated': False,
            'downloads': 0,
            'likes': 0,
            'lastModified': self.commits[sha]['date'],
            'createdAt': self.commits[sha]['date'],
            'tags': card.get('tags') or [],
            'library_name': card.get('library_name'),
            'pipeline_tag': card.get('pipeline_tag'),
            'cardData': card,
            'siblings': sib,
            'spaces': [],
        }


class HubError(Exception):
    def __init__(self, status, msg, code=None, body=None, headers=None):
        self.status, self.msg, self.code, self.body, self.headers = status, msg, code, body or {}, headers or {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True  # else head and body of every answer wait 40 ms for each other
    hub: 'FakeHub'
    cut = False

    def log_message(self, *a): ...

    def send(self, status, body=b'', headers=None):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers = {'Content-Type': 'application/json', **(headers or {})}
        self.hub.log(self, status)  # before the answer: a test may look as soon as the client has it
        self.send_response(status)
        headers = {'Content-Length': str(len(body)), **(headers or {})}
        for k, v in headers.items():
            self.send_header(k, v)
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body[: len(body) // 2] if self.cut else body)
        if self.cut:
            self.hang_up()

    def hang_up(self):
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def handle_any(self):
        self.body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        if self.headers.get('Transfer-Encoding') == 'chunked':
            while n := int(self.rfile.readline().split(b';')[0], 16):
                self.body += self.rfile.read(n)
                self.rfile.readline()
            self.rfile.readline()
        u = urlsplit(self.path)
        self.q = {k: v[-1] for k, v in parse_qs(u.query, keep_blank_values=True).items()}
        try:
            with self.hub.lock:
                for pat, fault in self.hub.fail:
                    if re.search(pat, f'{self.command} {u.path}'):
                        if fault == DROP:
                            return self.hang_up()
                        if fault != CUT:
                            raise HubError(fault, 'injected')
                        self.cut = True
                for method, pat, fn in ROUTES:
                    if self.command in method and (m := re.fullmatch(pat, u.path)):
                        return fn(self, **{k: unquote(v) if v else v for k, v in m.groupdict().items()})
            raise HubError(404, f'no route {self.command} {u.path}')
        except HubError as e:
            h = {'X-Error-Message': e.msg, **({'X-Error-Code': e.code} if e.code else {}), **e.headers}
            self.send(e.status, {'error': e.msg, **e.body}, h)
        except Exception as e:  # a bug here: 400 fails at once, the client would retry a 500 for 23 s
            self.hub.errors.append(e)
            self.send(400, {'error': f'fake hub bug: {e!r}'}, {'X-Error-Message': f'fake hub bug: {e!r}'[:200]})

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    # -- auth
    def user(self):
        tok = (self.headers.get('Authorization') or '').removeprefix('Bearer ').strip()
        if tok and tok not in self.hub.tokens:
            raise HubError(401, 'Invalid credentials in Authorization header')
        return self.hub.tokens.get(tok)

    def repo(self, repo, write=False):
        user, r = self.user(), self.hub.repos.get(repo)
        if r is None or (r.private and user != r.id.split('/')[0]):
            raise HubError(404 if user else 401, 'Repository not found', 'RepoNotFound')
        if write and user != r.id.split('/')[0]:
            raise HubError(403, "You don't have the rights to push to this repo")
        return r

    def rev(self, repo, rev, write=False):
        r = self.repo(repo, write)
        if (sha := r.sha(rev)) is None:
            raise HubError(404, f'Invalid rev id: {rev}', 'RevisionNotFound')
        return r, sha

    # -- endpoints
    def whoami(self):
        if not (u := self.user()):
            raise HubError(401, 'Invalid username or password.')
        self.send(
            200,
            {
                'type': 'user',
                'name': u,
                'fullname': u,
                'orgs': [],
                'auth': {'type': 'access_token', 'accessToken': {'role': 'write'}},
            },
        )

    def create(self):
        user, p = self.user(), json.loads(self.body)
        if not user:
            raise HubError(401, 'Invalid username or password.')
        rid = f'{p.get("organization") or user}/{p["name"]}'
        if rid.split('/')[0] != user:
            raise HubError(403, f"You don't have the rights to create a model under the namespace {rid.split('/')[0]!r}")
        if rid in self.hub.repos:
            raise HubError(409, 'You already created this model repo', body={'url': f'{self.hub.url}/{rid}'})
        self.hub.repos[rid] = Repo(rid, p.get('private') or p.get('visibility') == 'private')
        self.hub.repos[rid].type, self.hub.repos[rid].sdk = p.get('type', 'model'), p.get('sdk')
        self.send(200, {'url': f'{self.hub.url}/{rid}', 'name': rid, 'id': '0'})

    def delete_repo(self):
        p = json.loads(self.body)
        r = self.repo(f'{p.get("organization") or self.user()}/{p["name"]}', write=True)
        del self.hub.repos[r.id]
        self.send(200, b'OK')

    def validate_yaml(self):
        import yaml

        p, errors = json.loads(self.body), []
        m = re.match(r'---\r?\n(.*?)\r?\n---', p['content'], re.S)
        try:
            yaml.safe_load(m[1] if m else '')
        except yaml.YAMLError as e:
            errors = [{'message': str(e)}]
        self.send(400 if errors else 200, {'errors': errors, 'warnings': []})

    def preupload(self, repo, rev):
        r, sha = self.rev(repo, rev, write=True)
        cur, out = r.commits[sha]['files'], []
        for f in json.loads(self.body)['files']:
            lfs = f['path'].endswith(LFS_EXT) or f['size'] > 10_000_000
            old = cur.get(f['path'])
            out.append(
                {'path': f['path'], 'uploadMode': 'lfs' if lfs else 'regular', 'shouldIgnore': False}
                | ({'oid': old.etag} if old else {})
            )
        self.send(200, {'files': out, 'commitOid': sha})

    def lfs_batch(self, repo):
        self.repo(repo, write=True)
        p, objs = json.loads(self.body), []
        for o in p['objects']:
            act = {'upload': {'href': f'{self.hub.url}/_lfs/{o["oid"]}'}, 'verify': {'href': f'{self.hub.url}/_lfs/verify'}}
            objs.append({**o, 'authenticated': True} | ({} if o['oid'] in self.hub.lfs else {'actions': act}))
        self.send(200, {'transfer': 'basic', 'objects': objs}, {'Content-Type': 'application/vnd.git-lfs+json'})

    def lfs_put(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise HubError(400, 'sha256 mismatch')
        self.hub.lfs[oid] = self.body
        self.send(200, b'', {'ETag': f'"{oid}"'})

    def lfs_verify(self):
        p = json.loads(self.body)
        if len(self.hub.lfs.get(p['oid'], b'')) != p['size']:
            raise HubError(404, 'object missing')
        self.send(200, {})

    def lfs_get(self, oid):
        if oid not in self.hub.lfs:
            raise HubError(404, 'object missing')
        self.send_file(self.hub.lfs[oid], {'ETag': f'"{oid}"'})

    def commit(self, repo, rev):
        r, sha = self.rev(repo, rev, write=True)
        files, head = dict(r.commits[sha]['files']), {}
        for line in self.body.splitlines():
            op = json.loads(line)
            k, v = op['key'], op['value']
            if k == 'header':
                head = v
            elif k == 'file':
                files[v['path']] = Blob(base64.b64decode(v['content']), False)
            elif k == 'lfsFile':
                if v['oid'] not in self.hub.lfs:
                    raise HubError(400, f'LFS pointer pointed to a file that does not exist: {v["path"]}')
                files[v['path']] = Blob(self.hub.lfs[v['oid']], True)
            elif k == 'deletedFile':
                if files.pop(v['path'], None) is None:
                    raise HubError(404, "A file with this name doesn't exist", 'EntryNotFound')
            elif k == 'deletedFolder':
                files = {p: b for p, b in files.items() if not p.startswith(v['path'].rstrip('/') + '/')}
        if head.get('parentCommit') and head['parentCommit'] != sha:
            raise HubError(412, 'A commit has happened since. Please refresh and try again.')
        out, branch = {}, re.sub(r'^refs/heads/', '', rev)
        if self.q.get('create_pr'):
            r.prs += 1
            branch, out = f'refs/pr/{r.prs}', {'pullRequestUrl': f'{self.hub.url}/{repo}/discussions/{r.prs}'}
        self.hub.commit_hook(files)
        new = r.commit(branch, files, head['summary'], sha)
        self.send(
            200,
            {'success': True, 'commitOid': new, 'commitUrl': f'{self.hub.url}/{repo}/commit/{new}', 'hookOutput': '', **out},
        )

    def resolve(self, repo, rev, path):
        r, sha = self.rev(repo, rev)
        if (b := r.commits[sha]['files'].get(path)) is None:
            raise HubError(404, 'Entry not found', 'EntryNotFound', headers={'X-Repo-Commit': sha})
        h = {'X-Repo-Commit': sha, 'ETag': f'"{b.etag}"', 'Accept-Ranges': 'bytes'}
        if b.lfs:  # like the Hub: redirect to storage, size and etag in X-Linked-*
            self.hub.lfs[b.sha256] = b.data
            h |= {
                'X-Linked-Size': str(len(b.data)),
                'X-Linked-ETag': f'"{b.etag}"',
                'Location': f'{self.hub.cdn_url}/_lfs/{b.sha256}',
            }
            return self.send(302, b'', h)
        self.send_file(b.data, h)

    def send_file(self, data, h):
        m = re.fullmatch(r'bytes=(\d*)-(\d*)', self.headers.get('Range') or '')
        if not m:
            return self.send(200, data, h)
        n = len(data)
        lo, hi = (int(m[1]), min(int(m[2] or n - 1), n - 1)) if m[1] else (max(n - int(m[2]), 0), n - 1)
        if lo >= n:
            return self.send(416, b'', {'Content-Range': f'bytes */{n}'})
        self.send(206, data[lo : hi + 1], {**h, 'Content-Range': f'bytes {lo}-{hi}/{n}'})

    def model(self, repo, rev='main'):
        r, sha = self.rev(repo, rev or 'main')
        self.send(200, r.info(sha, 'blobs' in self.q))

    def models(self):
        s = self.q.get('search', '').lower()
        self.send(
            200,
            [
                r.info(r.refs['main'], False)
                for r in self.hub.repos.values()
                if not r.private and s in r.id.lower() and self.q.get('author', r.id.split('/')[0]) == r.id.split('/')[0]
            ],
        )

    def tree(self, repo, rev, path=None):
        r, sha = self.rev(repo, rev)
        pre, out = (path.strip('/') + '/') if path and path.strip('/') else '', {}
        for p, b in sorted(r.commits[sha]['files'].items()):
            if p.startswith(pre):
                parts = p[len(pre) :].split('/')
                for i in range(1, len(parts) if self.q.get('recursive', '').lower() == 'true' else min(2, len(parts))):
                    d = pre + '/'.join(parts[:i])
                    out[d] = {'type': 'directory', 'path': d, 'oid': git_oid(d.encode()), 'size': 0}
                if len(parts) == 1 or self.q.get('recursive', '').lower() == 'true':
                    out[p] = b.entry(p)
        if pre and not out:
            raise HubError(404, 'Entry not found', 'EntryNotFound')
        self.send(200, list(out.values()))

    def paths_info(self, repo, rev):
        r, sha = self.rev(repo, rev)
        p = (
            json.loads(self.body)['paths']
            if 'json' in (self.headers.get('Content-Type') or '')
            else parse_qs(self.body.decode()).get('paths', [])
        )
        self.send(200, [b.entry(f) for f, b in r.commits[sha]['files'].items() if f in p])

    def get_refs(self, repo):
        r = self.repo(repo)

        def row(kind, d):
            return [{'name': n, 'ref': f'refs/{kind}/{n}', 'targetCommit': s} for n, s in d.items()]

        self.send(
            200,
            {
                'branches': row('heads', {k: v for k, v in r.refs.items() if not k.startswith('refs/')}),
                'tags': row('tags', r.tags),
                'converts': [],
            },
        )

    def commits(self, repo, rev):
        r, sha = self.rev(repo, rev)
        out = []
        while sha:
            c = r.commits[sha]
            out.append(
                {'id': sha, 'title': c['title'], 'message': '', 'date': c['date'], 'authors': [{'user': r.id.split('/')[0]}]}
            )
            sha = c['parent']
        self.send(200, out)

    def set_ref(self, repo, kind, name):
        r, p = self.repo(repo, write=True), json.loads(self.body or b'{}')
        rev, name, store = (name, p['tag'], r.tags) if kind == 'tag' else (p.get('startingPoint', 'main'), name, r.refs)
        if (sha := r.sha(rev)) is None:
            raise HubError(404, f'Invalid rev id: {rev}', 'RevisionNotFound')
        if name in store:
            raise HubError(409, f'Reference already exists: {name}')
        store[name] = sha
        self.send(200, {})

    def empty(self, **_):
        self.send(200, {})


ID = r'(?P<repo>[^/]+/[^/]+)'
ROUTES = [
    ('GET', '/api/whoami-v2', Handler.whoami),
    ('POST', '/api/repos/create', Handler.create),
    ('DELETE', '/api/repos/delete', Handler.delete_repo),
    ('POST', '/api/validate-yaml', Handler.validate_yaml),
    ('POST', rf'/api/(?:models|spaces)/{ID}/preupload/(?P<rev>[^/]+)', Handler.preupload),
    ('POST', rf'(?:/spaces)?/{ID}\.git/info/lfs/objects/batch', Handler.lfs_batch),
    ('POST', '/_lfs/verify', Handler.lfs_verify),
    ('PUT', r'/_lfs/(?P<oid>\w{64})', Handler.lfs_put),
    ('GET HEAD', r'/_lfs/(?P<oid>\w{64})', Handler.lfs_get),
    ('POST', rf'/api/(?:models|spaces)/{ID}/commit/(?P<rev>[^/]+)', Handler.commit),
    ('GET HEAD', rf'(?:/spaces)?/{ID}/resolve/(?P<rev>[^/]+)/(?P<path>.+)', Handler.resolve),
    ('GET', rf'/api/(?:models|spaces)/{ID}(?:/revision/(?P<rev>[^/]+))?', Handler.model),
    ('GET', '/api/models', Handler.models),
    ('GET', rf'/api/(?:models|spaces)/{ID}/tree/(?P<rev>[^/]+)(?P<path>/.*)?', Handler.tree),
    ('POST', rf'/api/(?:models|spaces)/{ID}/paths-info/(?P<rev>[^/]+)', Handler.paths_info),
    ('GET', rf'/api/(?:models|spaces)/{ID}/refs', Handler.get_refs),
    ('GET', rf'/api/(?:models|spaces)/{ID}/commits/(?P<rev>[^/]+)', Handler.commits),
    ('POST', rf'/api/(?:models|spaces)/{ID}/(?P<kind>tag|branch)/(?P<name>[^/]+)', Handler.set_ref),
]


class FakeHub:
    def __init__(self, tokens=None, port=0):
        self.tokens = tokens or {'hf_acme': 'acme'}  # token -> user
        self.repos, self.lfs = {}, {}
        self.requests = []  # (method, path, status, with a token, at the storage host)
        self.fail = []  # fault injection: (regex on 'METHOD path', a status, DROP or CUT)
        self.errors = []
        self.commit_hook = lambda files: None  # may change what is committed
        self.lock = threading.RLock()
        handler = type('H', (Handler,), {'hub': self})
        # two hosts, as on the real Hub: the client must follow the LFS redirect without its token
        # (1.2x-2.0 compare host names only, so another port of 127.0.0.1 would be taken for the Hub itself)
        self.server, self.cdn = (ThreadingHTTPServer(('127.0.0.1', p), handler) for p in (port, 0))
        self.url, self.cdn_url = f'http://127.0.0.1:{self.server.server_port}', f'http://localhost:{self.cdn.server_port}'

    def log(self, h, status):
        self.requests.append((h.command, h.path, status, bool(h.headers.get('Authorization')), h.server is self.cdn))

    def __enter__(self):
        for s in (self.server, self.cdn):
            s.daemon_threads = True
            threading.Thread(target=s.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc):
        for s in (self.server, self.cdn):
            s.shutdown()
            s.server_close()
