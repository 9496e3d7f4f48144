#!/bin/sh
# Keeps a mailbox for each tenant: a file below MAILBOXES, in the smallest form that a step of kind `script` can have.
# It needs nothing but a shell. docs/own-steps-in-code.md explains it.
#
# `set -e` ends it at the first failure with an exit status that the contract does not have: the call counts as unknown,
# and is looked up by `read` before it is repeated.
set -eu

call=$(cat)

# The values that are taken here are names of ours, with letters, digits, dots and hyphens alone. For anything that a
# tenant may have written use a JSON parser (jq, Python): this one would be fooled by it.
field() { printf '%s' "$call" | sed -n "s/.*\"$1\": *\"\([A-Za-z0-9.-]*\)\".*/\1/p"; }
box="$MAILBOXES/$(field name)"

case $(field verb) in
create | update)
    printf '%s' "$call" >"$box.partial.$$"
    mv "$box.partial.$$" "$box"
    printf '{}'
    ;;
read)
    [ -e "$box" ] || exit 210
    # `differs` is not said, so a lost update is made again.
    printf '{}'
    ;;
delete)
    [ -e "$box" ] || exit 210
    rm "$box"
    printf '{}'
    ;;
*)
    echo "no verb of this contract" >&2
    exit 1
    ;;
esac
