// MCP server with version 1 of the official TypeScript SDK, which most servers still use.
import { InvalidTokenError } from '@modelcontextprotocol/sdk/server/auth/errors.js';
import { requireBearerAuth } from '@modelcontextprotocol/sdk/server/auth/middleware/bearerAuth.js';
import {
  getOAuthProtectedResourceMetadataUrl,
  mcpAuthMetadataRouter,
} from '@modelcontextprotocol/sdk/server/auth/router.js';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import express from 'express';

import { introspect, oauthMetadata, port, requiredScopes, resource, whoami } from './introspect.mjs';

const verifier = {
  async verifyAccessToken(token) {
    const info = await introspect(token);
    if (!info) throw new InvalidTokenError('inactive');
    return info;
  },
};

function newServer() {
  const server = new McpServer({ name: 'notes', version: '1' });
  const description = 'Returns the person and the agent of the call.';
  server.registerTool('whoami', { description }, async ({ authInfo }) => whoami(authInfo));
  return server;
}

const app = express();
app.use(express.json());
app.use(mcpAuthMetadataRouter({ oauthMetadata: await oauthMetadata(), resourceServerUrl: resource }));
app.all(
  '/mcp',
  requireBearerAuth({ verifier, requiredScopes, resourceMetadataUrl: getOAuthProtectedResourceMetadataUrl(resource) }),
  async (request, response) => {
    // Without sessions.
    const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined });
    await newServer().connect(transport);
    await transport.handleRequest(request, response, request.body);
  },
);
app.listen(port, '127.0.0.1');
