"""The page's files: one table of strings in both languages, nothing from other places, a strict policy."""

import json
import re
import shutil
import subprocess

import pytest
from web_service import Running

from melisma.web.page import STATIC, files

OWN = {name: content.decode() for name, (content, _) in files().items() if not name.startswith("vendor/")}
STRINGS = json.loads(OWN["js/strings.js"].split("export const STRINGS = ", 1)[1].rstrip().rstrip(";"))


def test_both_languages_have_every_string() -> None:
    for key, entry in STRINGS.items():
        assert set(entry) == {"en", "zh"}, key
        assert all(entry.values()), key
        assert set(re.findall(r"{\w+}", entry["en"])) == set(re.findall(r"{\w+}", entry["zh"])), key


def test_every_string_is_used_and_there() -> None:
    text = "\n".join(content for name, content in OWN.items() if name != "js/strings.js")
    named = set(re.findall(r'data-(?:t|label|aria)="(\w+)"', text)) | set(re.findall(r'\bt\(\s*"(\w+)"', text))
    assert named <= set(STRINGS)
    loose = {key for key in STRINGS if not re.search(rf'"{key}"', text)}
    assert not loose


def test_no_words_outside_the_table() -> None:
    body = OWN["index.html"].split("<body", 1)[1]
    visible = re.sub(r"<script.*?</script>|<noscript>.*?</noscript>", "", body, flags=re.DOTALL)
    words = {word.strip() for word in re.findall(r">([^<>]+)<", visible)} - {""}
    assert words <= {"melisma", "/", "0:00.0", "A", "B"}


def test_nothing_comes_from_elsewhere() -> None:
    for name, content in OWN.items():
        found = set(re.findall(r"https?://[^\s\"'`)]+", content)) - {"http://www.w3.org/2000/svg"}
        assert not found, name
    for name in re.findall(r'(?:href|src)="(static/[^"#]+)', OWN["index.html"]):
        assert name.removeprefix("static/") in files()
    for name, content in OWN.items():
        for target in re.findall(r'from "(\.[^"]+)"', content):
            assert (STATIC / name).parent.joinpath(target).resolve().is_file(), f"{name}: {target}"


def test_files_are_short() -> None:
    long = {name: lines for name, text in OWN.items() if (lines := len(text.splitlines())) > 300}
    assert not long


@pytest.mark.skipif(shutil.which("node") is None, reason="node is missing: the syntax of the scripts is not checked")
def test_scripts_parse() -> None:
    for name, content in OWN.items():
        if name.endswith(".js"):
            subprocess.run(["node", "--check", "--input-type=module", "-"], input=content, text=True, check=True)


def test_the_page_and_its_policy(server: Running) -> None:
    home = server.client.get("/", follow_redirects=False)
    assert home.headers["location"] == "/studio/"
    page = server.client.get("/studio/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    nonce = re.search(r"nonce-([\w-]+)", policy)
    assert nonce
    assert nonce[1] in page.text
    assert "__NONCE__" not in page.text
    assert nonce[1] not in server.client.get("/studio/").text


@pytest.mark.parametrize(
    "name", ["../studio.py", "..%2fstudio.py", "%2e%2e/app.py", "index.html", "js/nothing.js", "//etc/passwd"]
)
def test_only_files_of_the_page_are_served(server: Running, name: str) -> None:
    assert server.client.get(f"/studio/static/{name}").status_code == 404


def test_a_file_that_is_known_is_not_sent_again(server: Running) -> None:
    first = server.client.get("/studio/static/js/main.js")
    assert first.headers["content-type"].startswith("text/javascript")
    again = server.client.get("/studio/static/js/main.js", headers={"if-none-match": first.headers["etag"]})
    assert again.status_code == 304
