"""Builds the library with cargo and packs it into the wheel.

The crate is the folder above this one in a checkout, and `crate/` beside this file in a source distribution. The version of the
package is the crate's. An editable install finds the library in the source tree, where the hook leaves it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

HERE = Path(__file__).resolve().parent
LIBRARY = HERE / "src" / "mmc" / "libmmc.so"


def crate() -> Path:
    """The folder of the crate's Cargo.toml."""
    packed = HERE / "crate"
    return packed if packed.is_dir() else HERE.parent


class CustomMetadataHook(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        found = re.search(r'^version = "(.+)"$', (crate() / "Cargo.toml").read_text(encoding="utf-8"), re.MULTILINE)
        if found is None:
            raise RuntimeError("Cargo.toml has no version")
        metadata["version"] = found[1]


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        # rustup puts cargo there, and not every shell has been told.
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), os.path.expanduser("~/.cargo/bin")])
        cargo = shutil.which("cargo", path=path)
        if cargo is None:
            raise RuntimeError(
                "mmc is built with Rust, and there is no cargo: please install it from https://rustup.rs"
            )
        target = crate() / os.environ.get("CARGO_TARGET_DIR", "target")
        subprocess.run(
            [cargo, "build", "--release", "--locked", "--lib", "--target-dir", str(target)],
            cwd=crate(),
            env={**os.environ, "PATH": path},
            check=True,
        )
        # Replaced, not written into: a process may have the old one mapped.
        fresh = LIBRARY.with_suffix(".new")
        shutil.copyfile(target / "release" / LIBRARY.name, fresh)
        fresh.replace(LIBRARY)
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + re.sub(r"[-.]", "_", sysconfig.get_platform())
        build_data["artifacts"].append(str(LIBRARY.relative_to(HERE)))
