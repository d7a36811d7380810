"""
A solver for halmos that reads bit vectors as integers, by cvc5's translation: prints sat, unsat or unknown for a query's file.

Bit-blasting a division of 256 bits after a product does not end; as integers the same formula takes a fraction of a second.
"""

import sys

import cvc5


def main() -> None:
    solver = cvc5.Solver(cvc5.TermManager())
    solver.setOption("solve-bv-as-int", "sum")
    solver.setOption("produce-models", "true")
    parser = cvc5.InputParser(solver)
    parser.setFileInput(cvc5.InputLanguage.SMT_LIB_2_6, sys.argv[1])
    verdict = ""
    symbols = parser.getSymbolManager()
    while not (command := parser.nextCommand()).isNull():
        # Halmos asks for a model after every check; there is one only after `sat`.
        if command.getCommandName().startswith("get-") and verdict != "sat":
            continue
        answer = command.invoke(solver, symbols).strip()
        if command.getCommandName() == "check-sat":
            verdict = answer
        if answer and command.getCommandName() != "set-option":
            print(answer)


if __name__ == "__main__":
    main()
