"""Pushes an artifact that refers to another, or finds it again, with the oras library.

    oras_client.py push REGISTRY/REPOSITORY USER PASSWORD      by https
    oras_client.py discover REGISTRY/REPOSITORY                by http

The library has no call for referrers; what it does send is put together here as the distribution
spec has it: `GET referrers/<digest>`, and after a 404 the tag made of the digest.
"""

import pathlib
import sys
import tempfile

import oras.defaults
import oras.oci
import oras.provider

INDEX = oras.defaults.default_index_media_type
MANIFEST = oras.defaults.default_manifest_media_type
ARTIFACT = {"subject.txt": "what is referred to\n", "referrer.txt": "what refers to it\n"}


def push(repository, user, password):
    """Pushes the artifact as `1`, its referrer as `referrer`, and the index of the referrers."""
    registry = oras.provider.Registry()
    registry.auth.set_basic_auth(user, password)
    # The library keeps its first token, so the first request has to be one that needs to push.
    registry.do_request(f"https://{registry.get_container(repository).upload_blob_url()}", "POST")
    pushed = push_file(registry, f"{repository}:1", "subject.txt")
    subject = descriptor(pushed)
    pushed = push_file(registry, f"{repository}:referrer", "referrer.txt", subject)
    referrer = descriptor(pushed)
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [vars(referrer)]}
    url = f"https://{registry.get_container(repository).manifest_url(fallback_tag(subject.digest))}"
    answer = registry.do_request(url, "PUT", json=index, headers={"Content-Type": INDEX})
    answer.raise_for_status()


def push_file(registry, target, name, subject=None):
    """Pushes one file of the artifact from a temporary directory."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, name)
        path.write_text(ARTIFACT[name])
        return registry.push(target, files=[path], disable_path_validation=True, subject=subject)


def descriptor(pushed):
    """What was pushed, as the library's type for a subject, which any descriptor fits."""
    body = pushed.request.body
    return oras.oci.Subject(MANIFEST, pushed.headers["Docker-Content-Digest"], len(body))


def discover(repository):
    """Pulls the artifact, and what refers to it, and says by which way that was found."""
    registry = oras.provider.Registry(insecure=True)
    check(registry, f"{repository}:1", "subject.txt")
    container = registry.get_container(f"{repository}:1")
    url = f"http://{container.manifest_url()}"
    head = registry.do_request(url, "HEAD", headers={"Accept": MANIFEST})
    digest = head.headers["Docker-Content-Digest"]
    url = f"http://{container.registry}/v2/{container.api_prefix}/referrers/{digest}"
    answer = registry.do_request(url)
    way = "referrers API"
    if answer.status_code == 404:
        way = "tag made of the digest"
        url = f"http://{container.manifest_url(fallback_tag(digest))}"
        answer = registry.do_request(url, headers={"Accept": INDEX})
    answer.raise_for_status()
    [referrer] = answer.json()["manifests"]
    check(registry, f"{repository}@{referrer['digest']}", "referrer.txt")
    print("found by the", way)


def check(registry, target, name):
    """Pulls an artifact and compares it.

    The config too, which the library leaves: a mirror that has not all of an artifact does not
    promise it to anybody once upstream is gone.
    """
    with tempfile.TemporaryDirectory() as directory:
        [path] = registry.pull(target, outdir=directory)
        assert pathlib.Path(path).read_text() == ARTIFACT[name], f"{target}: {path}"
    config = registry.get_manifest(target)["config"]
    assert registry.get_blob(target, config["digest"]).content == b"{}", f"{target}: {config}"


def fallback_tag(digest):
    """The tag of the index of a digest's referrers, where the registry has no API for them."""
    return digest.replace(":", "-")


if __name__ == "__main__":
    {"push": push, "discover": discover}[sys.argv[1]](*sys.argv[2:])
