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

here=${0%/*}
exec 3<>"$here/control" 4<>"$here/answers" <"/dev/null"
exec 1<>"$here/log" 2>&1

# tell WORDS: until the supervisor has taken note of it. What a VM does for the first time after it
# woke takes long: while it waits in a pool, a step that does nothing is run.
tell() {
  echo "$1" >&3
  while read -r answer <&4; do
    case $answer in
      "$1") return ;;
      stop) exit 143 ;;
      again) echo "$1" >&3 ;;
      rehearse)
        (. "$here/env" && exec /bin/sh -e "$here/rehearsal.sh") 3>&- 4>&-
        echo "$1" >&3
        ;;
      "command "*) (. "$here/commands/${answer#* }/run.sh") & ;;
    esac
  done
}

# A container may be started before its build is known.
tell ready

step=0
while [ -e "$here/$step.sh" ]; do
  tell "start $step"
  (. "$here/env" && . "$here/$step.env" && exec /bin/sh -e "$here/$step.sh") 3>&- 4>&-
  code=$?
  tell "end $step $code"
  [ "$code" = 0 ] || exit "$code"
  step=$((step + 1))
done

[ ! -e "$here/sandbox" ] || . "$here/sandbox"
