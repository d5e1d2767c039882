# Get a runner's configuration from GARM, tell it how far we are, and run one job.
# In: GARM_METADATA_URL, GARM_CALLBACK_URL, GARM_INSTANCE_TOKEN, GARM_JIT; without JIT also
# GARM_REPO_URL, GARM_RUNNER_NAME, GARM_RUNNER_LABELS, GARM_RUNNER_GROUP.
cd "${RUNNER_HOME:-/home/runner}"
mask=$(umask)
umask 077
head=$(mktemp)
printf 'Authorization: Bearer %s\n' "$GARM_INSTANCE_TOKEN" >"$head"
unset GARM_INSTANCE_TOKEN
ask() { curl --silent --show-error --fail --retry 5 --retry-connrefused -H "@$head" -H 'Accept: application/json' "$@"; }
say() {
    ask --data "{\"status\": \"$1\", \"message\": \"$2\", \"agent_id\": ${3:-null}}" "${GARM_CALLBACK_URL%/status}/status" >/dev/null ||
        echo "GARM does not hear: $2"
}
fail() { say failed "$1"; echo "$1"; exit 1; }
say installing "the VM is up"
if [ "$GARM_JIT" = 1 ]; then
    for name in runner credentials credentials_rsaparams; do
        ask "$GARM_METADATA_URL/credentials/$name" >".$name" || fail "GARM gave no $name"
    done
    agent=null
else
    ACTIONS_RUNNER_INPUT_TOKEN=$(ask "$GARM_METADATA_URL/runner-registration-token/") || fail "GARM gave no token"
    export ACTIONS_RUNNER_INPUT_TOKEN
    ./config.sh --unattended --ephemeral --no-default-labels --url "$GARM_REPO_URL" --name "$GARM_RUNNER_NAME" \
        --labels "$GARM_RUNNER_LABELS" ${GARM_RUNNER_GROUP:+--runnergroup "$GARM_RUNNER_GROUP"} ||
        fail "the runner could not be configured"
    unset ACTIONS_RUNNER_INPUT_TOKEN
    agent=$(sed -n 's/.*"agentId": *\([0-9]*\).*/\1/p' .runner)
fi
say idle "the runner is up" "$agent"
rm -f "$head"
umask "$mask"
exec ./run.sh
