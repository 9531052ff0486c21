"""MCP server with FastMCP, whose own introspection verifier calls Errand."""

import json
import os

from fastmcp import FastMCP
from fastmcp.server.auth import RemoteAuthProvider
from fastmcp.server.auth.providers.introspection import IntrospectionTokenVerifier
from fastmcp.server.dependencies import get_access_token

ISSUER = os.environ["ERRAND_ISSUER"]
RESOURCE = os.environ["RESOURCE_URI"]

verifier = IntrospectionTokenVerifier(
    introspection_url=f"{ISSUER}/oauth2/introspect",
    client_id=os.environ["CLIENT_ID"],
    client_secret=os.environ["CLIENT_SECRET"],
    required_scopes=[os.environ["REQUIRED_SCOPE"]],
    audience=RESOURCE,
)
server = FastMCP(
    "notes",
    auth=RemoteAuthProvider(
        token_verifier=verifier,
        authorization_servers=[ISSUER],
        base_url=RESOURCE.removesuffix("/mcp"),
    ),
)


@server.tool
def whoami() -> str:
    """Returns the person and the agent of the call."""
    token = get_access_token()
    return json.dumps(
        {
            "requester": token.claims["sub"],
            "agent": token.client_id,
            "act": token.claims["act"],
            "scopes": token.scopes,
        }
    )


server.run(transport="http", host="127.0.0.1", port=int(os.environ["PORT"]), show_banner=False)
