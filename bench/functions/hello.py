# hello: answers with the token of its query.
import os

query = os.environ.get("QUERY_STRING", "")
print('{"token":"%s"}' % query.partition("t=")[2])
