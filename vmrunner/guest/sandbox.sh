# The driver's part in a sandbox: each command is a shell of its own beside the others (command.py),
# until it is told to stop. What ended is reaped on the way.
while read -r answer <&4; do
  case $answer in
    "command "*) (. "$here/commands/${answer#* }/run.sh") & ;;
    stop) exit 143 ;;
  esac
  jobs >"/dev/null"
done
