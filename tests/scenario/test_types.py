"""The types that nginx/www/taskproxy.js declares in JSDoc, as TypeScript's compiler sees them."""

import subprocess
from pathlib import Path

import needs
from parts import ROOT

# As strict as a bundler's usual configuration, and without the types that other packages of npm declare.
OPTIONS = ["--strict", "--noUnusedLocals", "--noUnusedParameters", "--noImplicitReturns", "--checkJs", "--noEmit", "--target", "es2022",
           "--module", "esnext", "--moduleResolution", "bundler", "--skipLibCheck"]


def test_module_and_a_page_that_uses_it_compile():
    compiler = Path(needs.npm_modules()) / "typescript" / "bin" / "tsc"
    page = Path(__file__).with_name("page.ts").relative_to(ROOT)
    done = subprocess.run(["node", str(compiler), *OPTIONS, str(page)], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
