# A real Chromium for the tests of the page. Sourced by bin/test behind environment.sh. POSIX sh.
#
#   one is there                  nothing to do: the same places as tests/browser/chromium.py looks in
#   root on Debian                apt-get install chromium
#   elsewhere, with CI set        playwright's download, into its own folder
#   neither, or no network        the tests of the page say at pytest's end that they were not run
#
# Tried once for a .venv: remove .venv/.voiceflow-chromium to try again.

ensure_chromium() {
    tried=$venv/.voiceflow-chromium
    if has_chromium || [ -f "$tried" ]; then
        return 0
    fi
    if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ] && grep -qs '^ID=debian' /etc/os-release; then
        say "installing Chromium for the tests of the page (once) ..."
        apt_chromium >"$venv/chromium.log" 2>&1 </dev/null || say "that failed: see $venv/chromium.log"
    elif [ -n "${CI:-}" ]; then
        say "downloading Chromium for the tests of the page (once) ..."
        playwright_chromium >"$venv/chromium.log" 2>&1 </dev/null || say "that failed: see $venv/chromium.log"
    else
        return 0
    fi
    : >"$tried"
}

has_chromium() {
    [ -z "${VOICEFLOW_CHROMIUM:-}" ] || return 0
    for name in chromium chromium-browser google-chrome google-chrome-stable chrome; do
        ! command -v "$name" >/dev/null 2>&1 || return 0
    done
    for path in "${PLAYWRIGHT_BROWSERS_PATH:-${HOME:-/nonexistent}/.cache/ms-playwright}"/chromium*; do
        [ ! -d "$path" ] || return 0
    done
    return 1
}

apt_chromium() {
    quickly="-o Acquire::Retries=2 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20"
    # shellcheck disable=SC2086 # these are words
    apt-get $quickly -q update &&
        DEBIAN_FRONTEND=noninteractive apt-get $quickly -q -y --no-install-recommends install chromium
}

playwright_chromium() {
    "$venv/bin/python" -I -m pip install --disable-pip-version-check --no-input -q 'playwright==1.65.2' &&
        "$venv/bin/python" -I -m playwright install chromium
}
