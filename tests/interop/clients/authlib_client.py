"""OAuth client that uses Authlib. Reads JSON requests and writes JSON responses, one per line."""

import json
import sys

import httpx
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.httpx_client import OAuth2Client
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from authlib.oauth2.rfc7523.assertion import private_key_jwt_sign
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet


class ShortLivedKeyJWT(PrivateKeyJWT):
    """Assertions with a shorter lifetime: Authlib's live for an hour, Errand accepts five minutes at most.

    `claims={"exp": ...}` does not help: the time would be fixed when the client is created. Authlib also writes the
    `jti` of the first assertion into that dictionary, so that every later assertion would be a replay.
    """

    def sign(self, auth, token_endpoint):
        return private_key_jwt_sign(
            auth.client_secret,
            client_id=auth.client_id,
            token_endpoint=token_endpoint,
            header={"kid": auth.client_secret.kid},
            alg="ES256",
            expires_in=60,
        )


class Client:
    def connect(self, request):
        well_known = request["issuer"] + "/.well-known/oauth-authorization-server"
        self.metadata = httpx.get(well_known).raise_for_status().json()
        # Authlib parses a string as an RSA key in PEM, so an EC key must be an object.
        credential = ECKey.import_key(request["key"]) if "key" in request else request["secret"]
        method = "private_key_jwt" if "key" in request else "client_secret_basic"
        self.client = OAuth2Client(
            request["client_id"],
            credential,
            token_endpoint_auth_method=method,
            revocation_endpoint_auth_method=method,
        )
        # With an explicit token endpoint, `aud` is the same at every endpoint; otherwise it is the
        # URL of each endpoint.
        self.client.register_client_auth_method(ShortLivedKeyJWT(self.metadata["token_endpoint"]))

    def exchange(self, request):
        return self.client.fetch_token(self.metadata["token_endpoint"], **request["parameters"])

    def introspect(self, request):
        return self.client.introspect_token(self.metadata["introspection_endpoint"], request["token"]).json()

    def revoke(self, request):
        return self.client.revoke_token(self.metadata["revocation_endpoint"], request["token"]).status_code

    def verify(self, request):
        keys = KeySet.import_key_set(httpx.get(self.metadata["jwks_uri"]).raise_for_status().json())
        token = jwt.decode(request["token"], keys, algorithms=["ES256"])
        jwt.JWTClaimsRegistry(
            iss={"essential": True, "value": self.metadata["issuer"]},
            aud={"essential": True, "value": request["audience"]},
            exp={"essential": True},
        ).validate(token.claims)
        return token.claims


def main():
    client = Client()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"answer": getattr(client, request["do"])(request)}
        except AuthlibBaseError as error:
            answer = {"error": error.error, "description": error.description}
        except Exception as error:  # the test that asked must hear of it, whatever it is
            answer = {"error": type(error).__name__, "description": str(error)}
        print(json.dumps(answer), flush=True)


main()
