"""Compiles the harnesses of tests/symbolic and lays them out as halmos reads them, beside a `forge` with nothing to build."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HARNESSES = ROOT / "tests" / "symbolic"
# Decided by a solver that reads words as integers (`_int_solver.py`): bit by bit, a division after a product does not end.
AS_INTEGERS = {"Division"}


def artifact(path: Path) -> dict:
    """A contract in the form of Foundry's build output; of the syntax tree only what says that it is a contract."""
    node = {
        "nodeType": "ContractDefinition",
        "name": path.stem,
        "contractKind": "contract",
        "nodes": [],
        "id": 1,
    }
    tree = {"nodeType": "SourceUnit", "absolutePath": str(path), "nodes": [node], "id": 0, "src": "0:0:0"}
    vyper = Path(sys.executable).parent / "vyper"
    command = [vyper, "-p", ROOT, "-f", "combined_json", "--evm-version", "prague", path]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (output,) = (of for name, of in json.loads(made.stdout).items() if name.endswith(".vy"))
    return {
        "abi": output["abi"],
        "ast": tree,
        "bytecode": {"object": output["bytecode"], "linkReferences": {}},
        "deployedBytecode": {"object": output["bytecode_runtime"], "linkReferences": {}},
        "metadata": {"compiler": {"version": "0.4.3"}, "output": {}},
        "methodIdentifiers": {
            name: number[2:].rjust(8, "0") for name, number in output["method_identifiers"].items()
        },
    }


def main() -> None:
    work = Path(sys.argv[1])
    for path in sorted(HARNESSES.glob("*.vy")):
        folder = work / ("integers" if path.stem in AS_INTEGERS else "bits") / f"{path.stem}.sol"
        folder.mkdir(parents=True)
        (folder / f"{path.stem}.json").write_text(json.dumps(artifact(path)))
    forge = work / "bin" / "forge"
    forge.parent.mkdir()
    forge.write_text("#!/bin/sh\nexit 0\n")
    forge.chmod(0o755)


if __name__ == "__main__":
    main()
