"""A client for the servers under test."""

import http.client


def ask(server, path, method="GET", headers=None):
    """Send a path as it is, without any client's tidying."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=300)
    connection.request(method, path, headers=headers or {})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body
