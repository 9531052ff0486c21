"""An MCP client by the official Python SDK. Reads one JSON request a line, writes one JSON answer a line.

`connect` opens a session that stays open over many requests, as an agent's would, until `close` or an error.
"""

import asyncio
import json
import sys

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client


async def next_request():
    line = await asyncio.to_thread(sys.stdin.readline)
    return json.loads(line) if line else None


def answer(**what):
    print(json.dumps(what), flush=True)


class Statuses:
    """The SDK's own error does not say with which HTTP status the server answered: this remembers it."""

    last = None

    async def note(self, response):
        self.last = response.status_code


async def session(uri, token, statuses):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with httpx2.AsyncClient(headers=headers, event_hooks={"response": [statuses.note]}) as http:
        async with Client(streamable_http_client(uri, http_client=http)) as client:
            answer(answer="connected")
            while (request := await next_request()) and request["do"] == "whoami":
                result = await client.call_tool("whoami", {})
                answer(answer=json.loads(result.content[0].text))


async def main():
    while request := await next_request():
        if request["do"] == "connect":
            statuses = Statuses()
            try:
                await session(request["uri"], request.get("token"), statuses)
            except Exception as error:  # a group of groups, from which only a human can tell what happened
                answer(error=repr(error), status=statuses.last)
                continue
        # The answer to `close`, whether it ended the session or an error had done so before.
        answer(answer="closed")


asyncio.run(main())
