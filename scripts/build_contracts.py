"""Compiles contracts/*.vy into contracts/artifacts/*.json; `--check` compares with a fresh compile instead.

An artifact holds the ABI, the creation bytecode, the runtime size and the compiler's version. Exit code 1 names every
artifact that is stale and every contract above the size that Ethereum deploys.
"""

import json
import sys
from pathlib import Path
from typing import Any

import vyper
from vyper.compiler import compile_from_file_input
from vyper.compiler.input_bundle import FilesystemInputBundle

ROOT = Path(__file__).resolve().parent.parent
CONTRACTS = ROOT / "contracts"
ARTIFACTS = CONTRACTS / "artifacts"
MAX_RUNTIME_BYTES = 24_576  # EIP-170


def compile_contract(source: Path) -> dict[str, Any]:
    """One contract file -> its artifact."""
    bundle = FilesystemInputBundle([ROOT])
    with bundle.search_path(ROOT):
        file_input = bundle.load_file(source.relative_to(ROOT))
    output = compile_from_file_input(
        file_input, input_bundle=bundle, output_formats=["abi", "bytecode", "bytecode_runtime"]
    )
    return {
        "name": source.stem,
        "compiler": f"vyper {vyper.__version__}",
        "runtime_size": len(output["bytecode_runtime"]) // 2 - 1,
        "abi": output["abi"],
        "bytecode": output["bytecode"],
    }


def add_views(vault: dict[str, Any], lens: dict[str, Any]) -> None:
    """The vault answers its lens's views at its own address, so its ABI has them."""
    vault["abi"] = [item for item in vault["abi"] if item["type"] != "fallback"] + lens["abi"]


def main() -> int:
    """Build or check every deployable contract; 0 when all is well."""
    checking = "--check" in sys.argv[1:]
    problems = []
    ARTIFACTS.mkdir(exist_ok=True)
    sources = sorted(CONTRACTS.glob("*.vy"))
    artifacts = {source.stem: compile_contract(source) for source in sources}
    add_views(artifacts["MarginVault"], artifacts["Lens"])
    for source in sources:
        artifact = artifacts[source.stem]
        size = artifact["runtime_size"]
        text = json.dumps(artifact, indent=1) + "\n"
        path = ARTIFACTS / f"{source.stem}.json"
        if checking and (not path.exists() or path.read_text() != text):
            problems.append(
                f"{path.name} is not what {source.name} compiles to; run scripts/build_contracts.py"
            )
        if not checking:
            path.write_text(text)
        if size > MAX_RUNTIME_BYTES:
            problems.append(f"{source.name}: {size} bytes of runtime code, at most {MAX_RUNTIME_BYTES}")
        print(f"{source.stem}: {size} bytes")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
