# What the client suites need: Chromium, Firefox and Node from Debian, the wheel and the probe's
# parts in a virtual environment, Synapse in another, livekit-client, the Node SDK, Element Call and
# what drives the browsers by lock file. All of it in tests/.cache or node_modules, nothing is
# installed twice.

VENV=$CACHE/venv
SYNAPSE=$CACHE/synapse

# as_root COMMAND...: as root, or with sudo where that needs no password.
as_root() {
  local sudo=''
  if ((EUID)); then
    sudo='sudo -n'
    $sudo true 2>/dev/null || { echo "please run as root: $*" >&2; return 1; }
  fi
  $sudo env DEBIAN_FRONTEND=noninteractive "$@"
}

apt_install() {
  as_root apt-get install -y --no-install-recommends "$@" ||
    { as_root apt-get update && as_root apt-get install -y --no-install-recommends "$@"; }
}

# need COMMAND PACKAGE...: installs the packages unless the command is there.
need() {
  local command=$1
  shift
  command -v "$command" >/dev/null || apt_install "$@"
}

make_venv() {
  python3 -m venv --clear "$1" && "$1/bin/python" -m pip --version
}

# install_python FOLDER REQUIREMENTS: a virtual environment with what the file names.
install_python() {
  local folder=$1 requirements=$2 stamp
  stamp=$(sha256sum "$requirements")
  [ -x "$folder/bin/python" ] && [ "$(cat "$folder/stamp" 2>/dev/null)" = "$stamp" ] && return
  need python3 python3 python3-venv
  make_venv "$folder" || { apt_install python3-venv && make_venv "$folder"; } || return 1
  "$folder/bin/python" -m pip install --disable-pip-version-check --quiet \
    -r "$requirements" && echo "$stamp" >"$folder/stamp"
}

# install_node FOLDER: what the lock file in that folder of tests names.
install_node() {
  local folder=tests/$1
  need node nodejs npm && need npm npm || return 1
  cmp -s "$folder/package-lock.json" "$folder/node_modules/.lock" && return
  # No install scripts: nothing of these packages has to be built, and what drives the browsers
  # must not fetch some of its own.
  npm ci --prefix "$folder" --ignore-scripts --no-audit --no-fund &&
    cp "$folder/package-lock.json" "$folder/node_modules/.lock"
}

# Unpacked and not installed: then no service of theirs begins to listen on this machine.
install_proxies() {
  local folder=$CACHE/debian
  [ -x "$folder/usr/sbin/nginx" ] && [ -x "$folder/usr/bin/caddy" ] && return
  mkdir -p "$folder/archives" || return 1
  (cd "$folder/archives" && { apt-get download nginx caddy ||
    { as_root apt-get update && apt-get download nginx caddy; }; }) || return 1
  local archive
  for archive in "$folder"/archives/*.deb; do
    dpkg -x "$archive" "$folder" || return 1
  done
}

install_clients() {
  if wanted python || wanted wire || wanted garbage || wanted crowd; then
    step 'install: Python clients' install_python "$VENV" tests/lib/requirements.txt || return 1
    step 'install: network namespaces' need ip iproute2 || return 1
    step 'install: reverse proxies' install_proxies || return 1
  fi
  if wanted browser || wanted crowd || wanted element; then
    step 'install: Chromium' need chromium chromium || return 1
    step 'install: npm packages' install_node browser || return 1
    step 'install: network namespaces' need ip iproute2 || return 1
  fi
  if wanted browser || wanted crowd; then
    step 'install: Firefox' need firefox-esr firefox-esr || return 1
  fi
  if wanted element; then
    step 'install: Synapse' install_python "$SYNAPSE" tests/element/requirements.txt || return 1
    step 'install: Element Call' install_node element || return 1
  fi
}

# Where they are, for the suites.
name_clients() {
  export PYTHON=$VENV/bin/python SYNAPSE_PYTHON=$SYNAPSE/bin/python
  # Whichever of them this run has no need for may be missing.
  CHROMIUM=$(command -v chromium || true) FIREFOX=$(command -v firefox-esr || true)
  export CHROMIUM FIREFOX
}
