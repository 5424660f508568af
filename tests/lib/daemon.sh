# A daemon for client suites, on ports nobody else has, stopped by its own process id.

WORKERS=2
# So that calls of more than three are held on both.
PARTICIPANTS_PER_WORKER=3

start_daemon() {
  local http metrics media
  read -r http metrics media < <(python3 tests/lib/ports.py "$WORKERS")
  STELLWERK_ROOMS_PARTICIPANTS_PER_WORKER=$PARTICIPANTS_PER_WORKER \
    "$1" serve --dev --http "127.0.0.1:$http" --metrics "127.0.0.1:$metrics" \
    --media-port "$media" --workers "$WORKERS" >"$DAEMON_LOG" 2>&1 &
  DAEMON_PID=$!
  export TEST_URL=ws://127.0.0.1:$http TEST_METRICS=http://127.0.0.1:$metrics
  export TEST_MEDIA_PORT=$media TEST_WORKERS=$WORKERS TEST_PID=$DAEMON_PID TEST_BIN=$1
  export TEST_KEY=devkey TEST_SECRET=stellwerk-dev-secret-0123456789abcdef
  local tries
  for ((tries = 0; tries < 100; tries++)); do
    python3 -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=1)' \
      "$TEST_METRICS/readyz" 2>/dev/null && return 0
    kill -0 "$DAEMON_PID" 2>/dev/null || break
    sleep 0.1
  done
  echo 'The daemon does not become ready:' >&2
  tail -n 20 "$DAEMON_LOG" >&2
  return 1
}

stop_daemon() {
  [ -n "$DAEMON_PID" ] || return 0
  local pid=$DAEMON_PID tries
  DAEMON_PID=''
  kill "$pid" 2>/dev/null || return 0
  for ((tries = 0; tries < 100; tries++)); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  if kill -0 "$pid" 2>/dev/null; then
    kill -9 "$pid"
    record fail - daemon 'ends within 10 s of SIGTERM' 10 ''
  fi
  wait "$pid" 2>/dev/null
  local fault
  if fault=$(grep -m1 -e 'a fault of the program' -e panicked "$DAEMON_LOG"); then
    record fail - daemon 'no fault in its log' 0 "$fault"
  fi
}
