"""The scripts of the page without a browser: a few lines of TypeScript that import its modules are run by Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

WEB = Path(__file__).parents[2] / "web"

RUN = """
import { rolldown } from "rolldown";
const bundle = await rolldown({ input: process.argv[1], logLevel: "silent" });
const { output } = await bundle.generate({ format: "esm" });
await import("data:text/javascript;base64," + Buffer.from(output[0].code).toString("base64"));
"""

BROWSER = """
const timers = new Map<number, () => void>();
let timerId = 0;
const listeners: (() => void)[] = [];
const document = { hidden: false, addEventListener: (_: string, listener: () => void) => listeners.push(listener) };
const setTimeout = (call: () => void): number => (timers.set(++timerId, call), timerId);
const clearTimeout = (id: number): boolean => timers.delete(id);
const window = { setTimeout, clearTimeout };
const requestAnimationFrame = (call: () => void): void => queueMicrotask(call);
Object.assign(globalThis, { document, window, requestAnimationFrame });
const settled = (): Promise<void> => new Promise((done) => setImmediate(done));
function setHidden(hidden: boolean): void {
  document.hidden = hidden;
  listeners.forEach((listener) => listener());
}
"""
"""A window whose timers only run when a test calls them, and whose page can be hidden by `setHidden`."""


def run_script(folder: Path, source: str) -> Any:
    """What a script leaves in `result`, read from JSON; `@/` in its imports is `web/src`.

    Args:
        folder: where the script is written.
        source: TypeScript that calls `show(result)` once.
    """
    node = shutil.which("node")
    if node is None:
        pytest.skip("the scripts of the page are not run: Node is not installed")
    if not (WEB / "node_modules/rolldown").exists():
        pytest.skip("the scripts of the page are not run: `make page` has not installed the packages of the page")
    show = "const show = (result: unknown): void => console.log(JSON.stringify(result));\n"
    script = folder / "script.ts"
    script.write_text(show + source.replace('"@/', f'"{WEB.as_posix()}/src/'), "utf-8")
    command = [node, "--input-type=module", "--eval", RUN, str(script)]
    done = subprocess.run(command, cwd=WEB, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
