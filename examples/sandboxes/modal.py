"""Modal's quick start, in vmrunner's words.

sb = modal.Sandbox.create(app=app)                  # there
p = sb.exec("python", "-c", "print('hello')", timeout=3)
print(p.stdout.read()); p = sb.exec("bash", "-c", "for i in {1..10}; do date +%T; sleep 0.5; done")
for line in p.stdout: …; sb.terminate()
"""

import vmrunner


def main() -> None:
    sb = vmrunner.Sandbox.create(ttl="5m")
    try:
        p = sb.popen(["python3", "-c", "print('hello')"], timeout=30)
        for line in p:
            print(line.decode(), end="")
        p.wait()
        p = sb.popen(["bash", "-c", "for i in {1..10}; do date +%T; sleep 0.5; done"])
        for line in p:
            print(line.decode(), end="")
        print("exit code", p.wait())
    finally:
        sb.kill()
        sb.close()


if __name__ == "__main__":
    main()
