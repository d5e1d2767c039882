#!/bin/sh
# gVisor as a runtime of Docker's, where the image has its package.
set -eu
command -v runsc >/dev/null || exit 0

# To tell a container's network from the VM's own, Debian's runsc looks for a file which since Linux
# 6.11 both have, and then refuses (google/gvisor#10704). It is not shown that file.
cat >/usr/local/bin/runsc-start <<'WRAPPER'
#!/bin/sh
case " $* " in
*" start "*)
  exec unshare --mount sh -c 'mount -t tmpfs none /proc/sys/net; exec runsc "$@"' runsc "$@"
  ;;
esac
exec runsc "$@"
WRAPPER
chmod 0755 /usr/local/bin/runsc-start

# FIFOs of the VM: the build's log, and its driver's words to the supervisor.
python3 - /etc/docker/daemon.json <<'CONF'
import json, pathlib, sys
file = pathlib.Path(sys.argv[1])
conf = json.loads(file.read_text())
runtimes = conf.setdefault("runtimes", {})
runtimes["runsc"] = {"path": "/usr/local/bin/runsc-start", "runtimeArgs": ["--host-fifo=open"]}
file.write_text(json.dumps(conf, indent=2) + "\n")
CONF
