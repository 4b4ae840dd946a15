"""Greets who asks. This file is loaded once; greet is called for each request."""

import json

from greetings import GREETINGS

names = sorted(GREETINGS)


def greet(event):
    if event["requestContext"]["http"]["method"] == "POST":
        try:
            name = json.loads(event["body"])["name"]
        except (ValueError, KeyError, TypeError):
            return {"statusCode": 400, "body": {"error": "want an object with a name"}}
    else:
        name = event["queryStringParameters"].get("name", "world")
    language = event["pathParameters"]["language"]
    if language not in GREETINGS:
        return {"statusCode": 404, "headers": {"X-Languages": ",".join(names)}, "body": {"error": "no such language"}}
    return {"greeting": f"{GREETINGS[language]}, {name}!", "agent": event["headers"].get("x-agent", "")}
