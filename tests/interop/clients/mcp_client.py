"""MCP client with the official Python SDK. Reads JSON requests and writes JSON responses, one per line.

`connect` opens a session, like that of an agent, which lasts until `close` or an error.
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


def respond(**response):
    print(json.dumps(response), flush=True)


class Statuses:
    """Records the HTTP status of responses, which the SDK's errors do not contain."""

    last = None

    async def note(self, response):
        self.last = response.status_code


async def session(uri, token, statuses):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with httpx2.AsyncClient(headers=headers, event_hooks={"response": [statuses.note]}) as http:
        async with Client(streamable_http_client(uri, http_client=http)) as client:
            respond(answer="connected")
            while (request := await next_request()) and request["do"] == "whoami":
                result = await client.call_tool("whoami", {})
                respond(answer=json.loads(result.content[0].text))


async def main():
    while request := await next_request():
        if request["do"] == "connect":
            statuses = Statuses()
            try:
                await session(request["uri"], request.get("token"), statuses)
            except Exception as error:
                # A group of groups, of which only a reader can tell what happened.
                respond(error=repr(error), status=statuses.last)
                continue
        # Response to `close`, or to the error that ended the session before.
        respond(answer="closed")


asyncio.run(main())
