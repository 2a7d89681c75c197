# Makes .venv in the checkout once, and keeps it in step with pyproject.toml. Sourced by bin/voiceflow and
# bin/test after they have set `root`, the checkout. POSIX sh and its usual tools; macOS and Linux.
#
#   ensure_environment run     what voiceflow needs
#   ensure_environment demo    that, and the models of pipelines/offline.py, where there are some for this machine
#   ensure_environment test    all of that, and what the checks need
#
# When it returns, "$venv" is ready. Otherwise it explains on stderr and exits with 1.
# Settings: VOICEFLOW_PYTHON (which Python to use), VOICEFLOW_SETUP_WAIT (seconds to wait for another set-up).

: "${root:?is set by whoever sources this}"
venv=$root/.venv
log=$venv/setup.log
lock=$venv/.lock
unfinished=$venv/.voiceflow-unfinished
newline='
'

say() {
    printf 'voiceflow: %s\n' "$1" >&2
}

die() {
    say "$1"
    exit 1
}

ensure_environment() {
    is_ready "$1" || set_up "$1"
}

# -- is there anything to do? On every start: one small program (cksum), no Python -----------------------

# A stamp is written last. It has the checksum of pyproject.toml, the checkout's place (the scripts in .venv
# have it written into them, so a checkout that was moved needs a new one) and the VOICEFLOW_PYTHON asked for.
is_ready() {
    [ -x "$venv/bin/python" ] && [ -x "$venv/bin/voiceflow" ] && [ -f "$venv/.voiceflow-$1" ] || return 1
    read_stamp "$1"
    [ "$stamped_sum" = "$(cksum <"$root/pyproject.toml")" ] && is_right_place
}

read_stamp() {
    stamped_sum='' stamped_root='' stamped_python=''
    {
        IFS= read -r stamped_sum
        IFS= read -r stamped_root
        IFS= read -r stamped_python
    } <"$venv/.voiceflow-$1" || :
}

is_right_place() {
    [ "$stamped_root" = "$root" ] || return 1
    [ -z "${VOICEFLOW_PYTHON:-}" ] || [ "$VOICEFLOW_PYTHON" = "$stamped_python" ]
}

write_stamp() {
    printf '%s\n%s\n%s\n' "$(cksum <"$root/pyproject.toml")" "$root" "$asked_for" >"$venv/.voiceflow-$1"
}

# -- setting up ------------------------------------------------------------------------------------------

set_up() {
    mkdir -p "$venv" 2>/dev/null && [ -w "$venv" ] || die "cannot write to $venv: is the checkout read-only?"
    take_lock
    trap drop_lock EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    if ! is_ready "$1"; then # another set-up may have finished while we waited
        since=$(date +%s)
        if is_sound; then
            announce "$1"
        else
            find_python
            say "setting up .venv with Python $python_version (once, about a minute) ..."
            make_venv
        fi
        install "$1"
        say "ready after $(($(date +%s) - since)) s"
    fi
    trap - EXIT HUP INT TERM
    drop_lock
}

announce() {
    if [ ! -f "$venv/.voiceflow-run" ]; then
        say "setting up .venv (once, about a minute) ..."
    elif [ "$stamped_sum" = "$(cksum <"$root/pyproject.toml")" ]; then
        case $1 in
            demo) say "adding to .venv the models that the demo talks with (70 MB, once) ..." ;;
            *) say "adding to .venv what bin/$1 needs (once) ..." ;;
        esac
    else
        say "pyproject.toml has changed: updating .venv ..."
    fi
}

# Whether what is in .venv can be updated. Not after a set-up that was killed half way: pip cannot tell then.
is_sound() {
    [ ! -e "$unfinished" ] && [ -x "$venv/bin/python" ] || return 1
    asked_for=${VOICEFLOW_PYTHON:-}
    if [ -f "$venv/.voiceflow-run" ]; then
        read_stamp run
        is_right_place || return 1
        asked_for=$stamped_python
    elif [ -n "$asked_for" ]; then
        return 1
    fi
    try_python "$venv/bin/python" && [ "$verdict" = ok ] && "$venv/bin/python" -I -c 'import pip' 2>/dev/null
}

make_venv() {
    rm -rf "${venv:?}"/* "$venv"/.voiceflow-*
    : >"$unfinished"
    asked_for=${VOICEFLOW_PYTHON:-}
    "$python" -I -m venv "$venv" >"$log" 2>&1 </dev/null && return
    tail -n 8 "$log" | sed 's/^/    /' >&2
    die "$python -m venv failed; all it said is in $log"
}

install() {
    case $1 in
        test) run_pip '.[test]' || give_up ;;
        demo)
            if ! run_pip '.[local]'; then
                # No wheels for this machine, or no network. The second try tells them apart.
                cp "$log" "$venv/setup-models.log"
                if run_pip .; then
                    say "the demo's models cannot be installed here ($venv/setup-models.log): without them."
                elif is_ready run; then
                    say "the demo's models cannot be fetched now ($venv/setup-models.log): without them."
                    return
                else
                    give_up
                fi
            fi
            ;;
        *) run_pip . || give_up ;;
    esac
    write_stamp run
    case $1 in
        demo) write_stamp demo ;;
        test) write_stamp demo && write_stamp test ;;
    esac
}

# pip runs without -q, but into the log: shown only when something goes wrong.
run_pip() {
    : >"$unfinished"
    code=0
    (
        cd "$root" || exit
        # -I: neither the caller's folder nor PYTHONPATH may lend pip a module. Two tries are enough to see
        # that there is no network.
        PIP_USER=0 PIP_RETRIES=${PIP_RETRIES:-2} exec "$venv/bin/python" -I -m pip install \
            --disable-pip-version-check --no-input --progress-bar off -e "$1"
    ) >"$log" 2>&1 </dev/null || code=$?
    if [ "$code" -ge 128 ]; then
        die "pip was killed by signal $((code - 128)); run this again."
    fi
    rm -f "$unfinished" # pip that gives up by itself leaves .venv as it was
    return "$code"
}

give_up() {
    explain_pip
    exit 1
}

explain_pip() {
    if grep -q CERTIFICATE_VERIFY_FAILED "$log"; then
        say "the package index shows a certificate that Python does not trust."
        say "Behind a company's proxy, point PIP_CERT at its certificate file and run this again."
    elif grep -q -i -E 'connection broken|max retries|name resolution|network is unreachable|timed out' "$log" &&
        grep -q -i -E 'no matching distribution|could not find a version|max retries|timed out' "$log"; then
        say "pip cannot reach the package index: is there a network?"
        say "Connect and run this again. Behind a proxy set HTTPS_PROXY, with a mirror PIP_INDEX_URL."
    else
        say "pip could not install what pyproject.toml asks for. Its last words:"
        grep -v -E '^[[:space:]]*$|already satisfied' "$log" | tail -n 12 | sed 's/^/    /' >&2
    fi
    say "All that pip said is in $log"
}

# -- which Python ----------------------------------------------------------------------------------------

# Runs in any Python since 2.6. Debian has venv in a package of its own and shows it by a missing ensurepip.
probe='
import sys
def verdict():
    if sys.version_info < (3, 11):
        return "old"
    if sys.version_info >= (3, 14):
        return "new"
    if sys.implementation.name != "cpython":
        return sys.implementation.name
    for module in ("venv", "ensurepip", "ssl", "zlib"):
        try:
            __import__(module)
        except ImportError:
            return "no-" + module
    return "ok"
print("%s %d.%d.%d %s" % ((verdict(),) + tuple(sys.version_info[:3]) + (sys.executable,)))
'

# Sets verdict, found_version and found_path. Running it is the only proof: a pyenv shim exists for every
# version that is installed, and fails for those that are not selected; so does a macOS without developer tools.
try_python() {
    verdict='' found_version='' found_path=''
    answer=$("$1" -I -c "$probe" 2>/dev/null </dev/null) || return 1
    IFS=' ' read -r verdict found_version found_path <<END
$answer
END
    [ -n "$found_path" ]
}

# Sets python (a path) and python_version.
find_python() {
    tried=''
    if [ -n "${VOICEFLOW_PYTHON:-}" ]; then
        set -- "$VOICEFLOW_PYTHON"
    else
        set -- python3.13 python3.12 python3.11 python3 python
    fi
    for candidate; do
        if ! command -v "$candidate" >/dev/null 2>&1; then
            [ -z "${VOICEFLOW_PYTHON:-}" ] || tried="    $candidate: there is no such program"
            continue
        fi
        if ! try_python "$candidate"; then
            reason="does not start, or is Python 2"
        else
            case $verdict in
                ok)
                    python=$found_path
                    python_version=$found_version
                    return
                    ;;
                old) reason="$found_version is too old" ;;
                new) reason="$found_version is too new" ;;
                no-*) reason="$found_version has no module ${verdict#no-}$(module_hint)" ;;
                *) reason="$found_version is $verdict, not CPython" ;;
            esac
        fi
        tried="$tried${tried:+$newline}    $candidate: $reason"
    done
    if [ -n "${VOICEFLOW_PYTHON:-}" ]; then
        say "needs Python 3.11, 3.12 or 3.13; the one that VOICEFLOW_PYTHON names cannot be used."
        printf '%s\n' "$tried" >&2
        exit 1
    fi
    say "needs Python 3.11, 3.12 or 3.13 and found none that it can use."
    [ -z "$tried" ] || printf '%s\n' "$tried" >&2
    say "$(install_hint)"
    say "One that is not on the PATH can be named: VOICEFLOW_PYTHON=/path/to/python3"
    exit 1
}

module_hint() {
    case $verdict in
        no-venv | no-ensurepip)
            ! command -v apt-get >/dev/null 2>&1 ||
                printf ': sudo apt-get install python%s-venv' "${found_version%.*}"
            ;;
        *) printf ': it was built without it' ;;
    esac
}

install_hint() {
    if [ "$(uname -s)" = Darwin ]; then
        printf 'Install one: brew install python@3.13, or https://www.python.org/downloads/'
    elif command -v apt-get >/dev/null 2>&1; then
        printf 'Install one: sudo apt-get install python3 python3-venv (Debian 12, Ubuntu 24.04), or with uv or pyenv.'
    elif command -v dnf >/dev/null 2>&1; then
        printf 'Install one: sudo dnf install python3.12, or with uv or pyenv.'
    else
        printf 'Install one with your package manager, uv or pyenv, or from https://www.python.org/downloads/'
    fi
}

# -- one set-up at a time --------------------------------------------------------------------------------

# The lock is a symlink to "PID@HOST": made in one step together with its owner's name, so there is no moment
# in which it has none. (A venv needs symlinks anyway.)
take_lock() {
    me="$$@$(uname -n)"
    waited=0
    until ln -s "$me" "$lock" 2>/dev/null; do
        owner=$(readlink "$lock" 2>/dev/null) || owner=''
        if is_dead "$owner"; then
            break_lock "$owner"
        fi
        if [ "$waited" -ge "${VOICEFLOW_SETUP_WAIT:-600}" ]; then
            [ -n "$owner" ] || die "cannot make a symlink in $venv"
            say "another set-up (process $owner) has held $lock for $waited s."
            die "When it is not running any more: rm -rf '$lock' '$lock.broken'"
        fi
        [ "$waited" != 1 ] || say "waiting for another set-up of .venv (process $owner) ..."
        [ ! -L "$lock" ] || sleep 1
        waited=$((waited + 1))
    done
}

# A process on another host (a container that shares the checkout) counts as alive. `kill -0` also fails for
# another user's process; /proc or ps know better.
is_dead() {
    [ "${1#*@}" = "${me#*@}" ] || return 1
    ! kill -0 "${1%@*}" 2>/dev/null && [ ! -d "/proc/${1%@*}" ] && ! ps -p "${1%@*}" >/dev/null 2>&1
}

# Of two that wait, only one may remove: the other would take away the lock that the first has just made.
break_lock() {
    mkdir "$lock.broken" 2>/dev/null || return 0
    [ "$(readlink "$lock" 2>/dev/null)" != "$1" ] || rm -f "$lock"
    rmdir "$lock.broken"
}

drop_lock() {
    [ "$(readlink "$lock" 2>/dev/null)" != "$me" ] || rm -f "$lock"
}
