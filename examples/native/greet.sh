#!/bin/sh
# Greets whom the path names. A program that is uploaded is run as it is, once
# per request; one that starts others says how many in "processes".
read -r line
printf 'Content-Type: text/plain\n\n'
printf '%s, %s!\n' "$GREETING" "$X_PARAM_NAME"
if [ -n "$line" ]; then
	printf 'You said: %s\n' "$line"
fi
