"""Daytona's quick start, in vmrunner's words.

sandbox = daytona.create()                          # there
response = sandbox.process.code_run('print("Hello World from code!")')
if response.exit_code != 0: print(f"Error: {response.exit_code} {response.result}")
else: print(response.result)
sandbox.delete()
"""

import vmrunner


def main() -> None:
    with vmrunner.Sandbox.create() as sandbox:
        response = sandbox.run(["python3", "-c", 'print("Hello World from code!")'])
        if response.exit_code != 0:
            print(f"Error: {response.exit_code} {response.stderr}")
        else:
            print(response.stdout, end="")


if __name__ == "__main__":
    main()
