"""``ketch completion``: the scripts that teach a shell to complete ketch's command lines.

Each hands the words before the cursor to ``ketch __complete`` and shows what that answers.
"""

import sys

from ketch.cli.flags import Command, Flag, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.settings import Settings


def _command(shell: str, now: str, always: str) -> Command:
    return Command(
        f"ketch completion {shell}",
        f"Generate the autocompletion script for {shell}\n\n"
        f"To load completions in the current shell session:\n\n\t{now}\n\n"
        f"To load completions for every new session, execute once:\n\n\t{always}",
        (Flag("no-descriptions", "", "bool", "Disable completion descriptions"),),
        maximum_arguments=0,
    )


_BASH = _command(
    "bash", "source <(ketch completion bash)",
    "ketch completion bash > /etc/bash_completion.d/ketch",
)  # fmt: skip
_FISH = _command(
    "fish", "ketch completion fish | source",
    "ketch completion fish > ~/.config/fish/completions/ketch.fish",
)  # fmt: skip
_ZSH = _command(
    "zsh", "autoload -U compinit; compinit; source <(ketch completion zsh)",
    'ketch completion zsh > "${fpath[1]}/_ketch"',
)  # fmt: skip

# Readline parts words at = and :, too, so they are put together again, and what it does not take
# for part of the word is cut off what it gets. An alias, a path and sudo lead here as well.
_BASH_SCRIPT = r"""# bash completion for ketch; needs no other package

_ketch() {
    local line=${COMP_LINE:0:COMP_POINT} rest word cut directive wide=0 about
    local -a words=() found=()
    for word in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        rest=${line#"${line%%[![:blank:]]*}"}
        ((${#word} > ${#rest})) && word=$rest
        if [[ $rest == "$line" && ${#words[@]} -gt 0 ]]; then
            words[-1]+=$word
        else
            words+=("$word")
        fi
        line=${rest#"$word"}
    done
    mapfile -t found < <("${words[0]/#\~/$HOME}" REQUEST "${words[@]:1}" 2>/dev/null)
    ((${#found[@]})) || return
    directive=${found[-1]#:}
    unset 'found[-1]'
    word=${words[-1]}
    COMPREPLY=()

    if ((directive & 16 || !(directive & 4))); then
        word=${word#--*=}
        word=${word#[\"\']}
        if ((directive & 16)); then
            mapfile -t COMPREPLY < <(compgen -d -- "$word")
        else
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
        fi
        if ((${#found[@]} == 0)); then
            compopt -o filenames
        else # readline would quote the signs in the other candidates
            for rest in "${!COMPREPLY[@]}"; do
                [[ -d ${COMPREPLY[rest]} ]] && COMPREPLY[rest]+=/
            done
            directive=2
        fi
        word=${words[-1]}
    fi
    ((directive & 2)) && compopt -o nospace

    cut=
    [[ $COMP_WORDBREAKS == *=* && $word == *=* ]] && cut=${word%"${word##*=}"}
    [[ $COMP_WORDBREAKS == *:* && $word == *:* ]] && cut=${word%"${word##*[=:]}"}
    found=("${found[@]#"$cut"}")
    # What candidates mean is shown where there is a choice, and not where it would be inserted.
    if ((${#found[@]} == 1)) || [[ $COMP_TYPE == 37 || $COMP_TYPE == 42 ]]; then
        found=("${found[@]%%$'\t'*}")
    else
        for word in "${found[@]%%$'\t'*}"; do
            ((${#word} > wide)) && wide=${#word}
        done
        for rest in "${!found[@]}"; do
            word=${found[rest]%%$'\t'*}
            about=${found[rest]#"$word"}
            [[ -n $about ]] || continue
            printf -v word '%-*s  (%s' "$wide" "$word" "${about#$'\t'}"
            ((${#word} > ${COLUMNS:-80} - 4)) && word=${word:0:${COLUMNS:-80} - 5}…
            found[rest]="$word)"
        done
    fi
    COMPREPLY+=("${found[@]}")
}

complete -F _ketch ketch
"""

_FISH_SCRIPT = r"""# fish completion for ketch

function __ketch_complete
    set -l words (commandline -opc)
    set -l word (commandline -ct)
    set -l found ($words[1] REQUEST $words[2..-1] "$word" 2>/dev/null)
    test (count $found) -gt 0; or return
    set -l directive (string replace : '' -- $found[-1])
    set -e found[-1]
    test (count $found) -gt 0; and printf '%s\n' $found
    set -l prefix (string match -r -- '^--[^=]*=' "$word")
    set -l path (string replace -r -- '^--[^=]*=' '' "$word")
    if test (math "bitand($directive, 16)") -ne 0
        __fish_complete_directories "$path" '' | string replace -r -- '^' "$prefix"
    else if test (math "bitand($directive, 4)") -eq 0
        __fish_complete_path "$path" | string replace -r -- '^' "$prefix"
    end
end

complete -c ketch -f -a '(__ketch_complete)'
"""

_ZSH_SCRIPT = r"""#compdef ketch
# zsh completion for ketch

_ketch() {
    local -a lines found unended
    local line word directive
    lines=("${(@f)$(${(Q)words[1]} REQUEST "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    directive=${lines[-1]#:}
    [[ $directive == <-> ]] || return 1
    for line in "${(@)lines[1,-2]}"; do
        word=${line%%$'\t'*}
        line=${word//:/\\:}${${line#$word}/$'\t'/:}
        if (( directive & 2 )) && [[ $word == *[=:-] ]]; then
            unended+=("$line")
        else
            found+=("$line")
        fi
    done
    (( $#found )) && _describe -V completions found
    (( $#unended )) && _describe -V completions unended -S ''
    if (( directive & 16 )); then
        compset -P '--*='
        _files -/
    elif (( ! (directive & 4) )); then
        compset -P '--*='
        _files
    fi
    (( $#found + $#unended ))
}

if [[ $funcstack[1] == _ketch ]]; then
    _ketch "$@"
else
    compdef _ketch ketch
fi
"""


def bash(settings: "Settings", arguments: list[str]) -> int:  # noqa: ARG001
    """Answer ``ketch completion bash``."""
    return _write(_BASH, _BASH_SCRIPT, arguments)


def fish(settings: "Settings", arguments: list[str]) -> int:  # noqa: ARG001
    """Answer ``ketch completion fish``."""
    return _write(_FISH, _FISH_SCRIPT, arguments)


def zsh(settings: "Settings", arguments: list[str]) -> int:  # noqa: ARG001
    """Answer ``ketch completion zsh``."""
    return _write(_ZSH, _ZSH_SCRIPT, arguments)


def _write(command: Command, script: str, arguments: list[str]) -> int:
    bare = parse(command, arguments).enabled("no-descriptions")
    sys.stdout.write(script.replace("REQUEST", "__completeNoDesc" if bare else "__complete"))
    return 0
