# What the client suites need: Chromium, Firefox and Node from Debian, the wheel and the probe's
# parts in a virtual environment, livekit-client, the Node SDK and what drives the browsers by lock
# file. All of it in tests/.cache or node_modules, nothing is installed twice.

VENV=$CACHE/venv

# apt_install PACKAGE...: as root, or with sudo where that needs no password.
apt_install() {
  local sudo=''
  if ((EUID)); then
    sudo='sudo -n'
    $sudo true 2>/dev/null || { echo "please install: apt-get install $*" >&2; return 1; }
  fi
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" ||
    { $sudo apt-get update && $sudo env DEBIAN_FRONTEND=noninteractive \
      apt-get install -y --no-install-recommends "$@"; }
}

# need COMMAND PACKAGE...: installs the packages unless the command is there.
need() {
  local command=$1
  shift
  command -v "$command" >/dev/null || apt_install "$@"
}

make_venv() {
  python3 -m venv --clear "$VENV" && "$VENV/bin/python" -m pip --version
}

install_python() {
  local stamp
  stamp=$(sha256sum tests/lib/requirements.txt)
  [ -x "$VENV/bin/python" ] && [ "$(cat "$VENV/stamp" 2>/dev/null)" = "$stamp" ] && return
  need python3 python3 python3-venv
  make_venv || { apt_install python3-venv && make_venv; } || return 1
  "$VENV/bin/python" -m pip install --disable-pip-version-check --quiet \
    -r tests/lib/requirements.txt && echo "$stamp" >"$VENV/stamp"
}

install_node() {
  local lock=tests/browser/package-lock.json
  need node nodejs npm && need npm npm || return 1
  cmp -s "$lock" tests/browser/node_modules/.lock && return
  # No install scripts: nothing of these packages has to be built, and what drives the browsers
  # must not fetch some of its own.
  npm ci --prefix tests/browser --ignore-scripts --no-audit --no-fund &&
    cp "$lock" tests/browser/node_modules/.lock
}

install_clients() {
  if wanted python || wanted wire || wanted garbage || wanted crowd; then
    step 'install: Python clients' install_python || return 1
    step 'install: network namespaces' need ip iproute2 || return 1
    export PYTHON=$VENV/bin/python
  fi
  if wanted browser || wanted crowd; then
    step 'install: Chromium' need chromium chromium || return 1
    step 'install: Firefox' need firefox-esr firefox-esr || return 1
    step 'install: npm packages' install_node || return 1
    CHROMIUM=$(command -v chromium) FIREFOX=$(command -v firefox-esr)
    export CHROMIUM FIREFOX
  fi
}
