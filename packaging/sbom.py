#!/usr/bin/env python3
"""Writes the list of parts of Kinfold (CycloneDX 1.5, JSON) to standard output: every crate that is built into the
program or runs while it is built, with version, licence, checksum and what it stands on.

Usage: packaging/sbom.py [TARGET]

Everything comes from `cargo metadata` and Cargo.lock, and the time from SOURCE_DATE_EPOCH, so that the same sources
give the same list. Crates that only tests need are left out.
"""

import datetime
import json
import os
import pathlib
import subprocess
import sys
import tomllib
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main() -> None:
    target = sys.argv[1] if len(sys.argv) > 1 else "x86_64-unknown-linux-gnu"
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    below = {id: sorted(needed(nodes[id])) for id in reachable(root, nodes)}
    checksums = {
        (package["name"], package["version"]): package.get("checksum")
        for package in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    }
    parts = [component(packages[id], checksums) for id in below if id != root]
    parts.sort(key=lambda part: part["bom-ref"])
    refs = {id: ref(packages[id]) for id in below}
    stands_on = [{"ref": refs[id], "dependsOn": sorted(refs[on] for on in on_these)} for id, on_these in below.items()]
    stands_on.sort(key=lambda entry: entry["ref"])
    time = datetime.datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), datetime.timezone.utc)
    bom = {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {**component(packages[root], checksums), "type": "application"},
            "properties": [{"name": "cargo:target", "value": target}],
        },
        "components": parts,
        "dependencies": stands_on,
    }
    # The number follows from the content: another list, another number.
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(bom, sort_keys=True))
    json.dump({"serialNumber": f"urn:uuid:{number}", **bom}, sys.stdout, indent=2)
    print()


def needed(node: dict) -> set[str]:
    """Returns what a crate needs to be built or to run; not what only its tests need."""
    return {dep["pkg"] for dep in node["deps"] if any(kind["kind"] in (None, "build") for kind in dep["dep_kinds"])}


def reachable(root: str, nodes: dict) -> set[str]:
    found, waiting = set(), [root]
    while waiting:
        id = waiting.pop()
        if id not in found:
            found.add(id)
            waiting.extend(needed(nodes[id]))
    return found


def ref(package: dict) -> str:
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package: dict, checksums: dict) -> dict:
    part = {
        "type": "library",
        "bom-ref": ref(package),
        "name": package["name"],
        "version": package["version"],
        "purl": ref(package),
    }
    if package.get("license"):
        # Older crates write a slash for OR.
        part["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    checksum = checksums.get((package["name"], package["version"]))
    if checksum:
        part["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return part


if __name__ == "__main__":
    main()
