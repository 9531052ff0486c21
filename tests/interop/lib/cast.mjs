// Who plays: the agents, the resources and the admin of every test.

export const TRUST_DOMAIN = 'interop.example';

export const READ = 'notes:read';
export const WRITE = 'notes:write';

/** What every resource offers. The MCP servers of the suite have the first one for real. */
export const TOOLS = [
  { name: 'whoami', scope: READ, effect: 'read' },
  { name: 'write_note', scope: WRITE, effect: 'write' },
];

/** Each agent is the client of another library, or proves who it is in another way. */
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
    // Authlib says the token endpoint in `aud` of its assertions; Errand wants its issuer unless told otherwise.
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

/** Resources without a server behind them: only their introspection matters. */
export const RESOURCES = {
  notes: { library: 'openid-client', method: 'client_secret_basic', uri: 'https://notes.example.com/mcp' },
  vault: { library: 'oauth4webapi', method: 'private_key_jwt', uri: 'https://vault.example.com/mcp' },
};

export const ADMINS = {
  ops: { library: 'openid-client', method: 'private_key_jwt', role: 'operator' },
};

/** The name under which an identity provider knows an agent: rarely the one that we know. */
export const appOf = (agent) => `${agent}-app`;
