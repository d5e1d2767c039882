"""E2B's quick start, in vmrunner's words.

from e2b_code_interpreter import Sandbox            # there
sbx = Sandbox.create()
sbx.files.write(…); sbx.commands.run(…); sbx.files.list("/")
"""

import vmrunner


def main() -> None:
    with vmrunner.Sandbox.create() as sbx:
        execution = sbx.run(["python3", "-c", "print('hello world')"])
        print(execution.stdout, end="")
        sbx.files.write("/work/dataset.csv", "name,age\nAda,36\n")
        print(sbx.files.read_text("/work/dataset.csv"), end="")
        print([entry.name for entry in sbx.files.list("/")])


if __name__ == "__main__":
    main()
