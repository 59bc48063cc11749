"""For the tests of what is installed: copies of the sources to build in, so that no test disturbs another."""

import shutil

from stack import ROOT


def copy_tree(folder):
    """What a build needs, with what is built already; the folder."""
    for name in ("conf", "fcgi", "nginx"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("Makefile", "README.md"):
        shutil.copy2(ROOT / name, folder)
    (folder / "build").mkdir()
    for path in (ROOT / "build").glob("*"):
        if path.is_file():
            shutil.copy2(path, folder / "build")
    return folder
