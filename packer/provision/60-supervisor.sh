#!/bin/sh
# The supervisor and the manifest, as vmrunner staged them.
set -eu
stage=${VMRUNNER_STAGE:?}
wanted=${VMRUNNER_RECIPE_HASH:-}

staged=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["hash"])' "$stage/image.json")
if [ -n "$wanted" ] && [ "$staged" != "$wanted" ]; then
    echo "stage: image.json is of the recipe $staged, not $wanted: stage it again" >&2
    exit 1
fi
for file in supervisor guest/supervisor.py; do
    if [ ! -s "$stage/supervisor/$file" ]; then
        echo "stage: supervisor/$file is missing: stage it again" >&2
        exit 1
    fi
done
rm -rf /usr/lib/vmrunner
mkdir -p /usr/lib/vmrunner /etc/vmrunner
cp -R "$stage/supervisor/." /usr/lib/vmrunner/
chown -R root:root /usr/lib/vmrunner
find /usr/lib/vmrunner -type d -exec chmod 0755 {} +
find /usr/lib/vmrunner -type f | while read -r file; do
    mode=0644
    if [ "$(head -c 2 "$file")" = '#!' ]; then
        mode=0755
    fi
    chmod "$mode" "$file"
done
install -o root -g root -m 0644 "$stage/image.json" /etc/vmrunner/image.json
