# Steps and their results. Every result is one line of tests/.cache/results.tsv:
# status, ids of checks or -, suite, test, seconds, detail.

CACHE=$PWD/tests/.cache
export TEST_RESULTS=$CACHE/results.tsv
export TEST_FILTER=$FILTER TEST_LONG=$LONG
DAEMON_PID='' DAEMON_LOG=$CACHE/logs/daemon.log
RUNNING=()

prepare() {
  mkdir -p "$CACHE/logs"
  : >"$TEST_RESULTS"
  # A machine where nobody ever logged in: tools want a home to write to.
  if [ -z "${HOME:-}" ] || [ ! -w "${HOME:-/nonexistent}" ]; then
    export HOME=$CACHE/home
    mkdir -p "$HOME"
  fi
  # Rust installed for a user is not always on the path of a non-interactive shell.
  command -v cargo >/dev/null || PATH=$PATH:$HOME/.cargo/bin:/usr/local/cargo/bin
}

wanted() {
  [ -z "$ONLY" ] || [[ ",$ONLY," == *",$1,"* ]]
}

record() {
  local IFS=$'\t'
  echo "$*" >>"$TEST_RESULTS"
}

# step NAME COMMAND...: runs it, shows its output only when it fails.
step() {
  local name=$1 log started
  shift
  log=$CACHE/logs/$(tr -c 'a-z0-9\n' - <<<"${name,,}").log
  started=$SECONDS
  if "$@" >"$log" 2>&1; then
    record pass - static "$name" $((SECONDS - started)) ''
    echo "ok   $name ($((SECONDS - started)) s)"
    # Not what Rust says beneath a panic that a test expects.
    grep -i '^note:' "$log" | grep -v RUST_BACKTRACE || true
  else
    record fail - static "$name" $((SECONDS - started)) "see ${log#"$PWD/"}"
    echo "FAIL $name ($((SECONDS - started)) s)"
    tail -n 40 "$log"
    return 1
  fi
}

# step_if CONDITION NAME COMMAND...: a skip when the condition doesn't hold.
step_if() {
  local condition=$1
  shift
  if eval "$condition" >/dev/null 2>&1; then
    step "$@"
  else
    record skip - static "$1" 0 "not here: $condition"
    echo "skip $1 ($condition)"
  fi
}

# The unit's binary path need not exist on the machine that checks the unit's text.
verify_units() {
  local unit scratch
  scratch=$(mktemp -d)
  for unit in systemd/*.service; do
    sed -E 's#^(Exec[A-Za-z]*=)[-+!@]*(/[^ ]+)#\1/bin/true#' "$unit" >"$scratch/${unit##*/}"
    systemd-analyze verify --man=no "$scratch/${unit##*/}" || { rm -rf "$scratch"; return 1; }
  done
  rm -rf "$scratch"
}

# cargo test, its long ones too; one result per test so that the totals tell something. What needs a
# server of others is a step of its own, see livekit_server.
cargo_tests() {
  local log=$CACHE/logs/cargo-test.log status
  cargo test --locked --no-fail-fast -- --include-ignored --skip livekit_server_ >"$log" 2>&1
  status=$?
  awk -v OFS='\t' '
    /Running |Doc-tests/ { where = $0; sub(/^ *(Running )?/, "", where); sub(/ \(.*/, "", where) }
    /^test .* \.\.\. (ok|FAILED|ignored)/ {
      verdict = $0; sub(/.* \.\.\. /, "", verdict); sub(/[, ].*/, "", verdict)
      name = $0; sub(/^test /, "", name); sub(/ \.\.\. .*/, "", name)
      ids = ""; rest = tolower(name)
      while (match(rest, /(lk|mx)_?[0-9][0-9]/)) {
        ids = ids (ids ? " " : "") toupper(substr(rest, RSTART, 2)) "-" \
          substr(rest, RSTART + RLENGTH - 2, 2)
        rest = substr(rest, RSTART + RLENGTH)
      }
      status = verdict == "ok" ? "pass" : verdict == "FAILED" ? "fail" : "skip"
      print status, ids ? ids : "-", "cargo", where " " name, 0, ""
    }' "$log" >>"$TEST_RESULTS"
  if ((status)); then
    record fail - cargo 'cargo test' 0 "see ${log#"$PWD/"}"
    echo "FAIL cargo test"
    grep -E '^(error|test .*FAILED)|panicked at' "$log" | head -n 40
  else
    echo "ok   cargo test ($(grep -c '\.\.\. ok$' "$log") tests)"
  fi
}

# The load tester against LiveKit's own server, where that is installed.
livekit_server() {
  step_if 'command -v livekit-server' 'load of livekit-server' \
    cargo test --locked --test load -- --ignored livekit_server_
}

# suite NAME COMMAND...: a client suite, which records its own results and ends with 3 where a test
# failed. A suite that dies before it could say what is wrong is itself a failure.
suite() {
  local name=$1 status
  shift
  "$@"
  status=$?
  ((status == 0 || status == 3)) ||
    record fail - "$name" 'suite runs to its end' 0 "exit code $status of $*"
  kill -0 "$DAEMON_PID" 2>/dev/null ||
    record fail - "$name" 'the daemon lives' 0 "see ${DAEMON_LOG#"$PWD/"}"
}

# begin_lane NUMBER OF NAME COMMAND...: a share of a suite that waits more than it computes, beside
# others, with a daemon of its own.
begin_lane() {
  # Each lane is a process group, so that an interruption can end all of it.
  set -m
  lane "$@" &
  RUNNING+=("$!")
  set +m
}

end_lanes() {
  ((${#RUNNING[@]})) && wait "${RUNNING[@]}"
  RUNNING=()
}

# A lane, in a process of its own.
lane() {
  export TEST_LANE=$1/$2
  DAEMON_LOG=$CACHE/logs/daemon-$3-$1.log DAEMON_PID=''
  shift 2
  trap stop_daemon EXIT
  if start_daemon "$BIN"; then
    suite "$@"
  else
    record fail - "$1" 'a daemon for each lane' 0 "see ${DAEMON_LOG#"$PWD/"}"
  fi
}

count() {
  awk -F'\t' -v s="$1" '$1 == s { n += 1 } END { print n + 0 }' "$TEST_RESULTS"
}

finish() {
  local status=$?
  trap - EXIT
  local lane
  for lane in "${RUNNING[@]}"; do
    kill -INT -- "-$lane" 2>/dev/null && wait "$lane"
  done
  stop_daemon
  local failed
  failed=$(count fail)
  if ((failed)); then
    echo
    echo 'Failed:'
    awk -F'\t' '$1 == "fail" { print "  " $3 ": " $4 "\n      " $6 }' "$TEST_RESULTS"
  fi
  echo
  echo "$(count pass) passed, $failed failed, $(count skip) skipped"
  ((failed == 0 && status == 0)) || exit 1
}
