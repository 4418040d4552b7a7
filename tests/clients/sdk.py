"""What posit-sdk is used for, against one server. Arguments: its URL, an administrator's key, a folder of ours."""
import io
import json
import sys
import tarfile

from posit.connect import Client
from posit.connect.errors import ClientError

url, key, folder = sys.argv[1:]
client = Client(url, key)
assert client.me["username"] == "ann" and client.me["user_role"] == "administrator"
assert client.version == "2026.04.0"

content = client.content.create(name="report", title="Report")
assert [one["guid"] for one in client.content.find()] == [content["guid"]]
assert client.content.get(content["guid"])["title"] == "Report"
content.update(description="Said so", access_type="acl", max_processes=2)
assert client.content.find_one(name="report")["description"] == "Said so"

cy = client.users.find(prefix="cy")[0]
group = client.groups.create(name="Sales")
group.members.add(cy)
assert [user["username"] for user in group.members.find()] == ["cy"]
permission = content.permissions.create(cy, role="viewer")
content.permissions.create(group, role="viewer")
assert content.permissions.count() == 2
permission.update(role="owner")
assert content.permissions.get(permission["id"])["role"] == "owner"
permission.destroy()
assert [one["principal_type"] for one in content.permissions.find()] == ["group"]

variables = content.environment_variables
variables.create("COLOUR", "blue")
variables.update(SIZE="7")
assert sorted(variables.find()) == ["COLOUR", "SIZE"]
variables.delete("COLOUR")
variables.clear()
assert variables.find() == []

assert content.vanity is None
content.vanity = "/sales/"
assert content.vanity == "/sales/" and client.content.get(content["guid"]).vanity == "/sales/"
assert [one["path"] for one in client.vanities.all()] == ["/sales/"]
del content.vanity
assert client.content.get(content["guid"]).vanity is None

tag = client.tags.create(name="Finance")
below = client.tags.create(name="Quarter", parent=tag)
content.tags.add(below)
assert [one["name"] for one in content.tags.find()] == ["Quarter"]
listed = client.content.find(include=["owner", "tags", "vanity_url"])[0]
assert listed["owner"]["username"] == "ann" and listed["tags"][0]["name"] == "Quarter", listed
assert [one["guid"] for one in below.content_items.find()] == [content["guid"]]
content.tags.delete(below)
below.destroy()

manifest = {"version": 1, "metadata": {"appmode": "static", "primary_html": "index.html"}, "files": {}}
path = f"{folder}/bundle.tar.gz"
with tarfile.open(path, "w:gz") as tar:
    for name, text in (("manifest.json", json.dumps(manifest)), ("index.html", "<h1>Hello</h1>")):
        info = tarfile.TarInfo(name)
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text.encode()))
bundle = content.bundles.create(path)
task = bundle.deploy()
task.wait_for()
assert task.is_finished and not task.error_code, dict(task)
assert content.bundles.find_one()["active"]
bundle.download(f"{folder}/again.tar.gz")
assert open(path, "rb").read() == open(f"{folder}/again.tar.gz", "rb").read()

try:
    client.content.get("00000000-0000-4000-8000-000000000000")
    raise AssertionError("there is no such content")
except ClientError as error:
    assert error.http_status == 404, error
content.delete()
assert client.content.count() == 0
group.delete()
print("done")
