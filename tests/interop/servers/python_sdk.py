"""MCP server with the official Python SDK. It introspects the token of every request (RFC 7662)."""

import json
import os

import httpx2
from mcp.server import MCPServer
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken, TokenVerifier
from mcp.server.auth.settings import AuthSettings

ISSUER = os.environ["ERRAND_ISSUER"]
RESOURCE = os.environ["RESOURCE_URI"]


class Introspection(TokenVerifier):
    def __init__(self):
        self.errand = httpx2.AsyncClient(
            base_url=ISSUER, auth=(os.environ["CLIENT_ID"], os.environ["CLIENT_SECRET"]), timeout=30
        )

    async def verify_token(self, token):
        answer = await self.errand.post("/oauth2/introspect", data={"token": token, "token_type_hint": "access_token"})
        answer.raise_for_status()
        claims = answer.json()
        if not claims["active"]:
            return None
        return AccessToken(
            token=token,
            client_id=claims["client_id"],
            scopes=claims.get("scope", "").split(),
            expires_at=claims["exp"],
            resource=claims["aud"],
            subject=claims["sub"],
            claims={"act": claims["act"]},
        )


server = MCPServer(
    "notes",
    token_verifier=Introspection(),
    auth=AuthSettings(
        issuer_url=ISSUER,
        resource_server_url=RESOURCE,
        required_scopes=[os.environ["REQUIRED_SCOPE"]],
        validate_token_resource=True,
    ),
)


@server.tool()
def whoami() -> str:
    """Returns the person and the agent of the call."""
    token = get_access_token()
    act = token.claims["act"]
    return json.dumps({"requester": token.subject, "agent": token.client_id, "act": act, "scopes": token.scopes})


server.run(transport="streamable-http", port=int(os.environ["PORT"]))
