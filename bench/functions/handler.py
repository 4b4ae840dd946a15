# hello as a handler: this file runs once, handler for each request.


def handler(event):
    return {"token": event["queryStringParameters"].get("t", "")}
