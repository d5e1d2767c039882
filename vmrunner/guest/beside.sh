# The driver's part in a unit, whose supervisor is in another container and sees no process of this
# one. `alive` is this shell's alone: when it is gone, the supervisor hears that. A child obeys its
# wishes: a signal to all processes, or to those of one command and what it has started.
exec 5>"$here/alive"

# below PID: the processes that descend from it, itself first.
below() {
  found=" $1 "
  grown=
  while [ "$grown" != "$found" ]; do
    grown=$found
    for status in /proc/[0-9]*/status; do
      pid=${status#/proc/}
      pid=${pid%/status}
      case $found in *" $pid "*) continue ;; esac
      while read -r key value; do
        case $key in
          PPid:)
            case $found in *" $value "*) found="$found$pid " ;; esac
            break
            ;;
        esac
      done <"$status"
    done 2>"/dev/null"
  done
}

(
  exec 5>&- 3>&- 4>&- 6<>"$here/wishes" >"/dev/null" 2>&1
  trap '' TERM INT HUP
  while read -r whom signal <&6; do
    case $whom in
      all) [ "$$" != 1 ] || kill -"$signal" -1 ;;
      *)
        below "$whom"
        for pid in $found; do
          [ "$pid $signal" = "${pid#"$whom"} $signal" ] || [ "$signal" = KILL ] || continue
          kill -"$signal" "$pid"
        done
        ;;
    esac
  done
) &
