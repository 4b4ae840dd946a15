"""{{name}} is a function: the request's body is its standard input, and what it
prints is the response. What it writes to standard error is in its log:
baton logs {{name}}
"""
import json
import os
import sys

try:
    body = json.loads(sys.stdin.read() or "{}")
except ValueError as e:
    # A header block, as in CGI, sets the status and fields.
    print("Status: 400\nContent-Type: application/json\n")
    print(json.dumps({"error": str(e)}))
    sys.exit()
name = body.get("name", "world") if isinstance(body, dict) else "world"
# Output that starts with { or [ is sent as JSON.
print(json.dumps({"message": f"Hello, {name}", "method": os.environ.get("REQUEST_METHOD", "")}))
