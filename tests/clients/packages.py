"""Makes a wheel and a source distribution of a package with one module, as small as the rules allow.

usage: packages.py FOLDER NAME VERSION [CONTENT]

CONTENT `noise:N`: N letters that compress to about half. CONTENT `readme:TEXT`: Markdown that describes it.
"""

import base64
import hashlib
import io
import random
import sys
import tarfile
import zipfile

folder, name, version = sys.argv[1:4]
content = sys.argv[4] if len(sys.argv) > 4 else "1"
if content.startswith("noise:"):
    content = random.Random(name).randbytes(int(content[6:]) // 2).hex()
module = name.lower().replace("-", "_").replace(".", "_")
metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Python: >=3.8\nSummary: small\n"
if content.startswith("readme:"):
    metadata += f"Description-Content-Type: text/markdown\n\n{content[7:]}"
info = f"{module}-{version}.dist-info"
files = {
    f"{module}.py": f"CONTENT = {content!r}\n",
    f"{info}/METADATA": metadata,
    f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}


def row(path, text):
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(text.encode())}\n"


record = "".join(row(path, text) for path, text in files.items()) + f"{info}/RECORD,,\n"
with zipfile.ZipFile(f"{folder}/{module}-{version}-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
    for path, text in {**files, f"{info}/RECORD": record}.items():
        wheel.writestr(path, text)
with tarfile.open(f"{folder}/{module}-{version}.tar.gz", "w:gz") as sdist:
    for path, text in {"PKG-INFO": metadata, f"{module}.py": files[f"{module}.py"]}.items():
        entry = tarfile.TarInfo(f"{module}-{version}/{path}")
        entry.size = len(text.encode())
        sdist.addfile(entry, io.BytesIO(text.encode()))
