# The driver's part in a sandbox: each command is a shell of its own beside the others (command.py),
# until it is told to stop. What ended is reaped on the way.
#
# A shell ends when it cannot fork, and the container with this one: so it begins anew in its place.
here=${0%/*}
trap 'exec /bin/sh "$here/sandbox"' EXIT
while read -r answer <&4; do
  case $answer in
    "command "*) (. "$here/commands/${answer#* }/run.sh") & ;;
    stop)
      trap - EXIT
      exit 143
      ;;
  esac
  jobs >"/dev/null"
done
