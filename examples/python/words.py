# Counts the words of the request's body: a plain script, as it would run in a shell.
import collections
import json
import os
import re
import sys

if os.environ["REQUEST_METHOD"] != "POST":
    print("Status: 405\nAllow: POST\nContent-Type: text/plain\n\nsend a text")
    sys.exit()

words = collections.Counter(re.findall(r"\w+", sys.stdin.read().lower()))
print(json.dumps({"words": sum(words.values()), "most": words.most_common(2)}))
