#!/bin/sh
# A small initramfs: the drivers of the one root disk that there is here, which the kernel names, so
# that no udev looks for it. The bases of clouds come with one that finds theirs, NVMe among them.
# Runs before the kernel is installed (so that its first initramfs is the small one) and after;
# rebuilds only what a change of settings makes stale.
set -eu

if [ "${VMRUNNER_PLATFORM:-local}" != local ]; then
    exit 0
fi
conf=/etc/initramfs-tools/conf.d/vmrunner
modules=/etc/initramfs-tools/modules.vmrunner
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT

cat >"$new/conf" <<'CONF'
MODULES=list
COMPRESS=lz4
RESUME=none
CONF
printf '%s\n' virtio_pci virtio_blk >"$new/modules"

if cmp -s "$new/conf" "$conf" && cmp -s "$new/modules" "$modules"; then
    exit 0
fi
mkdir -p /etc/initramfs-tools/conf.d
cp "$new/conf" "$conf"
cp "$new/modules" "$modules"
# The package's own list is a conffile; a hook adds ours without touching it.
mkdir -p /etc/initramfs-tools/hooks
cat >/etc/initramfs-tools/hooks/vmrunner <<'HOOK'
#!/bin/sh
if [ "${1:-}" = prereqs ]; then
    echo udev
    exit 0
fi
. /usr/share/initramfs-tools/hook-functions
while read -r module; do
    force_load "$module"
done </etc/initramfs-tools/modules.vmrunner
rm -f "$DESTDIR/usr/lib/udev/hwdb.bin" # 13 MB of keyboards and cameras
if [ -x /usr/lib/initramfs-tools/bin/wait-for-root ]; then
    exit 0 # Ubuntu's asks udev whether the root disk is there, for 30 s
fi
rm -rf "$DESTDIR"/scripts/init-top/udev "$DESTDIR"/usr/lib/udev "$DESTDIR"/usr/bin/udevadm \
    "$DESTDIR"/usr/lib/systemd/systemd-udevd
# That init finds its console, /dev must go where the root is, which is udev's script's other work.
cat >"$DESTDIR/scripts/init-bottom/udev" <<'SCRIPT'
#!/bin/sh
if [ "${1:-}" = prereqs ]; then
    exit 0
fi
mount -n -o move /dev "${rootmnt:?}/dev"
SCRIPT
HOOK
chmod 0755 /etc/initramfs-tools/hooks/vmrunner
if command -v update-initramfs >/dev/null; then
    update-initramfs -u -k all
fi
