"""What is installed in the benchmark: wheels, R packages and a CRAN's index, the same bytes in every run."""
import base64
import gzip
import hashlib
import io
import random
import tarfile
import uuid
import zipfile

PACKAGES = 22_000  # a CRAN of today
R_SIZES = {"rsmall": 30_000, "rmiddle": 300_000, "rlarge": 1_500_000}


def noise(size, seed):
    return random.Random(seed).randbytes(size)


def wheel(name, version, size=0):
    """A pure wheel with metadata as long as usual and `size` bytes that do not compress."""
    info = f"{name}-{version}.dist-info"
    about = "\n".join(f"Line {n} of what {name} does, as README files tell it." for n in range(40))
    classifiers = "".join(f"Classifier: Programming Language :: Python :: 3.{n}\n" for n in range(9, 15))
    files = {
        f"{name}/__init__.py": b"",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: For measuring\n"
                            f"Requires-Python: >=3.9\n{classifiers}Requires-Dist: small >=1\n\n{about}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: bench\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if size:
        files[f"{name}/data.bin"] = noise(size, f"{name} {version}")
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for path, data in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(zipfile.ZipInfo(path, (2026, 1, 1, 0, 0, 0)), data)
    return f"{name}-{version}-py3-none-any.whl", out.getvalue()


def projects():
    """Project → its wheels, oldest first."""
    return {
        "small": [wheel("small", f"1.{n}") for n in range(5)],
        "big": [wheel("big", f"1.{n}") for n in range(300)],
        "middle": [wheel("middle", f"1.{n}", 200_000 if n == 9 else 0) for n in range(10)],
        "large": [wheel("large", f"1.{n}", 2_000_000 if n == 19 else 0) for n in range(20)],
        "huge": [wheel("huge", f"1.{n}", 20_000_000 if n == 1 else 0) for n in range(2)],
    }


def form(name, version, filename, data):
    """The body of a legacy upload as twine sends it, and its content type."""
    boundary = uuid.UUID(int=random.getrandbits(128)).hex
    fields = {":action": "file_upload", "protocol_version": "1", "metadata_version": "2.1", "name": name,
              "version": version, "filetype": "bdist_wheel", "pyversion": "py3",
              "sha256_digest": hashlib.sha256(data).hexdigest()}
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
             for key, value in fields.items()]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="content"; filename="{filename}"\r\n' \
           "Content-Type: application/octet-stream\r\n\r\n"
    return b"".join(parts) + head.encode() + data + f"\r\n--{boundary}--\r\n".encode(), \
        f"multipart/form-data; boundary={boundary}"


def r_package(name, size):
    """A source package."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, data in ((f"{name}/DESCRIPTION", f"Package: {name}\nVersion: 1.0\nLicense: MIT\n".encode()),
                           (f"{name}/data.bin", noise(size, name))):
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return gzip.compress(out.getvalue(), 1, mtime=0)


def cran():
    """Path below `src/contrib` → bytes."""
    files = {f"{name}_1.0.tar.gz": r_package(name, size) for name, size in R_SIZES.items()}
    dice = random.Random(22)
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789."
    names = ["".join(dice.choice(letters[:52])for _ in range(2)) + "".join(dice.choices(letters[:62], k=dice.randint(2, 10)))
             for _ in range(PACKAGES - len(files))]
    licences = ["GPL-3", "GPL (>= 2)", "MIT + file LICENSE", "GPL-2 | GPL-3", "Apache License (>= 2)"]
    entries = {}
    for name in names:
        needs = lambda most: ", ".join(dice.sample(names, dice.randint(1, most)))
        entries[name] = (f"Package: {name}\nVersion: {dice.randint(0, 9)}.{dice.randint(0, 30)}.{dice.randint(0, 9)}\n"
                         f"Depends: R (>= {dice.randint(3, 4)}.{dice.randint(0, 5)}.0)\nImports: {needs(12)}\n"
                         f"Suggests: {needs(6)}\nLicense: {dice.choice(licences)}\n"
                         f"MD5sum: {dice.getrandbits(128):032x}\nNeedsCompilation: {dice.choice(['yes', 'no', 'no'])}\n")
    for name in R_SIZES:
        md5 = hashlib.md5(files[f"{name}_1.0.tar.gz"]).hexdigest()
        entries[name] = f"Package: {name}\nVersion: 1.0\nLicense: MIT\nMD5sum: {md5}\nNeedsCompilation: no\n"
    text = "\n".join(entries[name] for name in sorted(entries)).encode()
    return {**files, "PACKAGES": text, "PACKAGES.gz": gzip.compress(text, mtime=0)}
