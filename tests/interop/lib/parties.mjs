// The parties: agents, resources and the admin of every test.

export const TRUST_DOMAIN = 'interop.example';

export const READ = 'notes:read';
export const WRITE = 'notes:write';

/** Tools of every resource. The MCP servers of the suite implement the first one. */
export const TOOLS = [
  { name: 'whoami', scope: READ, effect: 'read' },
  { name: 'write_note', scope: WRITE, effect: 'write' },
];

/** Each agent uses another library or another method of client authentication. */
export const AGENTS = {
  planner: {
    library: 'openid-client',
    method: 'private_key_jwt',
    scopes: [READ, WRITE],
    mayDelegateTo: ['researcher'],
  },
  researcher: {
    library: 'oauth4webapi',
    method: 'private_key_jwt',
    scopes: [READ, WRITE],
    mayDelegateTo: [],
  },
  courier: {
    library: 'authlib',
    method: 'private_key_jwt',
    // Authlib puts the token endpoint into `aud` of its assertions; by default, Errand requires its
    // issuer.
    audience: 'token_endpoint_too',
    scopes: [READ, WRITE],
    mayDelegateTo: [],
  },
  desk: {
    library: 'openid-client',
    method: 'client_secret_basic',
    scopes: [READ],
    mayDelegateTo: [],
  },
};

/** Resources without a server, used for introspection only. */
export const RESOURCES = {
  notes: { library: 'openid-client', method: 'client_secret_basic', uri: 'https://notes.example.com/mcp' },
  vault: { library: 'oauth4webapi', method: 'private_key_jwt', uri: 'https://vault.example.com/mcp' },
};

export const ADMINS = {
  ops: { library: 'openid-client', method: 'private_key_jwt', role: 'operator' },
};

/** Client id of an agent at an identity provider; usually not the id at Errand. */
export const appOf = (agent) => `${agent}-app`;
