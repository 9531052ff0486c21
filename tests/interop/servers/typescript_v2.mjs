// MCP server with version 2 of the official TypeScript SDK.
import {
  createMcpExpressApp,
  getOAuthProtectedResourceMetadataUrl,
  mcpAuthMetadataRouter,
  requireBearerAuth,
} from '@modelcontextprotocol/express';
import { toNodeHandler } from '@modelcontextprotocol/node';
import { McpServer, OAuthError, OAuthErrorCode, createMcpHandler } from '@modelcontextprotocol/server';

import { introspect, oauthMetadata, port, requiredScopes, resource, whoami } from './introspect.mjs';

const verifier = {
  async verifyAccessToken(token) {
    const info = await introspect(token);
    // Any other error type would cause a 500.
    if (!info) throw new OAuthError(OAuthErrorCode.InvalidToken, 'inactive');
    return { ...info, resource };
  },
};

function newServer() {
  const server = new McpServer({ name: 'notes', version: '1' });
  const description = 'Returns the person and the agent of the call.';
  server.registerTool('whoami', { description }, async (context) => whoami(context.http.authInfo));
  return server;
}

const app = createMcpExpressApp({ host: '127.0.0.1' });
app.use(mcpAuthMetadataRouter({ oauthMetadata: await oauthMetadata(), resourceServerUrl: resource }));
const handle = toNodeHandler(createMcpHandler(newServer));
app.all(
  '/mcp',
  requireBearerAuth({ verifier, requiredScopes, resourceMetadataUrl: getOAuthProtectedResourceMetadataUrl(resource) }),
  (request, response) => void handle(request, response, request.body),
);
app.listen(port, '127.0.0.1');
