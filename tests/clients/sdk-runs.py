"""What posit-sdk does with content that runs and content that is rendered. Arguments: a server's URL, an administrator's key,
the guid of an API, a folder of ours."""
import io
import json
import sys
import tarfile
import time

from posit.connect import Client
from posit.connect.errors import ClientError

url, key, guid, folder = sys.argv[1:]
client = Client(url, key)


def eventually(what, ask):
    until = time.monotonic() + 60
    while time.monotonic() < until:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.2)
    raise AssertionError(what)


def process():
    """Which process answers."""
    return client.get(f"../content/{guid}/").text


def running():
    return [job for job in content.jobs.fetch() if job["tag"] == "run_fastapi_app" and job["status"] == 0]


content = client.content.get(guid)
assert content.is_interactive and not content.is_rendered
first = process()
content.restart()
eventually("another process after a restart", lambda: process() != first)
assert content.environment_variables.find() == []

job = eventually("the job of the process", lambda: (running() or [None])[0])
assert content.jobs.find(job["key"])["tag"] == "run_fastapi_app"
assert content.jobs.find_by(key=job["key"])["app_guid"] == guid


def ended():
    """Of a process that has just begun the job comes a moment later."""
    left = running()
    for one in left:
        try:
            one.destroy()
        except ClientError as error:
            assert error.http_status == 409, error
    return not left


eventually("its end", ended)
try:
    content.jobs.find(job["key"]).destroy()
    raise AssertionError("it has ended")
except ClientError as error:
    assert error.http_status == 409, error

assert content.repository is None
try:
    content.create_repository(repository="https://git.example.org/x", branch="main", directory=".", polling=False)
    raise AssertionError("there is no Git here")
except ClientError as error:
    assert "does not deploy content from Git" in str(error), error
assert client.environments.find_by(name="Local")["python"]["installations"]
assert client.oauth.integrations.find() == []
assert content.oauth.associations.find() == []
assert [cache["language"] for cache in client.system.caches.runtime.find()] == ["Python"]
cache = client.system.caches.runtime.find()[0]
assert cache.destroy(dry_run=True) is None
task = cache.destroy()
task.wait_for()
assert task.is_finished, dict(task)

report = client.content.create(name="weekly")
manifest = {
    "version": 1,
    "platform": "4.2.2",
    "metadata": {"appmode": "rmd-static", "primary_rmd": "weekly.Rmd"},
    "packages": {"R6": {"Source": "CRAN", "description": {"Package": "R6", "Version": "2.5.1"}}, "cli": {}},
    "files": {},
}
path = f"{folder}/bundle.tar.gz"
with tarfile.open(path, "w:gz") as tar:
    for name, text in (("manifest.json", json.dumps(manifest)), ("weekly.Rmd", "---\ntitle: Weekly\n---\n`r 6 * 7`\n")):
        info = tarfile.TarInfo(name)
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text.encode()))
task = report.bundles.create(path).deploy()
task.wait_for()
assert task.is_finished and not task.error_code, dict(task)
report = client.content.get(report["guid"])
assert report.is_rendered
task = report.render()
task.wait_for()
assert task.is_finished and not task.error_code, dict(task)
assert len(client.get(f"v1/content/{report['guid']}/renderings").json()) == 2

# What they run with: of Python what its environment has, of R what its bundle lists.
r6 = report.packages.find_by(name="R6")
assert dict(r6) == {"language": "r", "language_version": "4.2.2", "name": "R6", "version": "2.5.1", "hash": None}, r6
assert [one["version"] for one in report.packages] == ["2.5.1", None]
fastapi = content.packages.find_by(language="python", name="fastapi")
assert fastapi["version"] and fastapi["language_version"].startswith("3."), fastapi
assert len(content.packages) > 5 and not content.packages.fetch(language="r")
everywhere = list(client.packages.fetch())
assert len(everywhere) == len(content.packages) + len(report.packages)
assert {one["app_guid"] for one in everywhere} == {content["guid"], report["guid"]}
found = client.packages.find_by(name="R6", app_guid=report["guid"], bundle_id=report["bundle_id"], app_id=report["id"])
assert found["hash"] is None and client.packages.find_by(name="R6", version="1.0") is None
first = client.get("v1/packages", params={"page_size": 3}).json()
third = client.get("v1/packages", params={"page_size": 3, "page_number": 3}).json()
assert (first["total"], third["current_page"]) == (len(everywhere), 3), first
assert first["results"] + third["results"] == [dict(one) for one in everywhere[:3] + everywhere[6:9]]
try:
    report.packages.fetch(language="cobol")
    raise AssertionError("there is no such language here")
except ClientError as error:
    assert error.http_status == 400, error

assert report.schedule.find_one() is None
made = report.schedule.create(type="dayofweek", days=["monday", "friday"], timezone="Europe/Vienna")
assert made.rule == {"Days": [1, 5]}, dict(made)
changed = report.schedule.create(type="day", n=2)
assert (changed["id"], changed["type"], changed["timezone"]) == (made["id"], "day", "Europe/Vienna"), dict(changed)
report.schedule.find_one().destroy()
assert report.schedule.find_one() is None
print("done")
