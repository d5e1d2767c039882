# The container's main process: waits for its build, then runs the steps one after another, each in
# a shell of its own.
#
# All output of all steps is one FIFO, so its order is the order of writing. It is opened for
# reading too: a supervisor that restarts must not give anybody a SIGPIPE. Before and after each
# step the supervisor is told and answers, so it knows to the byte where a step's output lies.
# A process that a step leaves behind may keep the log open: only the step itself is waited for.
# As pid 1 this shell reaps what is orphaned.
#
# A sandbox has no steps, but commands (sandbox.sh).
#
# A step's shell reads this file too, and asks itself for leave to begin: so the first one is there
# before its build is. To start it takes longer than all else between the two.

here=${0%/*}

# tell WORDS: until the supervisor has taken note of it.
tell() {
  echo "$1" >&3
  while read -r answer <&4; do
    case $answer in
      "$1") return ;;
      # To another word it is the answer of a supervisor that took over, which says it again.
      "start 0") [ "$1" != ready ] || return 0 ;;
      stop) exit 143 ;;
      again) echo "$1" >&3 ;;
      # Nobody's job: a step's shell may wait for any of its own.
      "command "*) ( (. "$here/commands/${answer#* }/run.sh") & ) ;;
    esac
  done
}

step=${0##*/}
if [ "$step" != driver.sh ]; then
  # A container may be started before its build is known.
  [ "$step" != 0.sh ] || tell ready
  [ -e "$0" ] || exit 0
  [ "$answer" = "start 0" ] || tell "start ${step%.sh}"
  exec 3>&- 4>&- 5>&-
  unset -f tell
  unset here answer step
  . "${0%/*}/env"
  . "${0%.sh}.env"
  . "$0"
  exit
fi

exec 3<>"$here/control" 4<>"$here/answers" <"/dev/null"
exec 1<>"$here/log" 2>&1
[ ! -p "$here/alive" ] || . "$here/beside.sh"

step=0
while [ "$step" = 0 ] || [ -e "$here/$step.sh" ]; do
  (exec /bin/sh -ec '. "${0%/*}/driver.sh"' "$here/$step.sh")
  code=$?
  [ -e "$here/$step.sh" ] || break
  tell "end $step $code"
  [ "$code" = 0 ] || exit "$code"
  step=$((step + 1))
done

[ "$code" = 0 ] || exit "$code"
[ ! -e "$here/sandbox" ] || . "$here/sandbox"
