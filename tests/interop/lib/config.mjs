// Configuration file of an Errand server.
// JSON strings and arrays of strings are valid TOML, so no TOML library is needed.

import { TOOLS, TRUST_DOMAIN, appOf } from './parties.mjs';

const toml = JSON.stringify;

export function configuration({ issuer, listen, storeUrlFile, encryptionKeyFile, idps, agents, resources, admins }) {
  return [
    `issuer = ${toml(issuer)}
trust_domain = ${toml(TRUST_DOMAIN)}
listen = ${toml(listen)}
operations_listen = ${toml(listen)}

[store]
url_file = ${toml(storeUrlFile)}

[keys]
algorithm = "ES256"
encryption_key_file = ${toml(encryptionKeyFile)}

# Most verbose level: at the end, the log is searched for tokens and secrets.
[log]
format = "pretty"
level = "info,errand=trace"
`,
    ...idps.map((idp) => issuerTable(idp, issuer)),
    ...Object.entries(agents).map(([id, agent]) => agentTables(id, agent, idps, resources)),
    ...Object.entries(resources).map(([id, resource]) => resourceTables(id, resource)),
    ...Object.entries(admins).map(([id, admin]) => adminTables(id, admin)),
  ].join('\n');
}

function issuerTable(idp, issuer) {
  return `[[issuers]]
issuer = ${toml(idp.issuer)}
keys = "discovery"
audiences = ${toml([issuer])}
algorithms = ${toml([idp.algorithm])}
token_types = ["access_token", "id_token"]
allowed_networks = ["127.0.0.0/8"]
${idp.policy}`;
}

function agentTables(id, agent, idps, resources) {
  return `[[agents]]
id = ${toml(id)}
may_delegate_to = ${toml(agent.mayDelegateTo)}
${authentication('agents', agent)}
[agents.known_as]
${idps.map((idp) => `${toml(idp.issuer)} = ${toml([appOf(id)])}\n`).join('')}
${Object.keys(resources).map((resource) => `[[agents.access]]
resource = ${toml(resource)}
scopes = ${toml(agent.scopes)}
`).join('\n')}`;
}

function resourceTables(id, resource) {
  return `[[resources]]
id = ${toml(id)}
uri = ${toml(resource.uri)}
${authentication('resources', resource)}
${TOOLS.map((tool) => `[[resources.tools]]
name = ${toml(tool.name)}
scope = ${toml(tool.scope)}
effect = ${toml(tool.effect)}
`).join('\n')}`;
}

function adminTables(id, admin) {
  return `[[admins]]
id = ${toml(id)}
role = ${toml(admin.role)}
${authentication('admins', admin)}`;
}

function authentication(table, { credential, audience }) {
  const file = credential.method === 'private_key_jwt' ? 'jwks_file' : 'secret_file';
  return `[${table}.authentication]
method = ${toml(credential.method)}
${file} = ${toml(credential.file)}
${audience ? `assertion_audience = ${toml(audience)}\n` : ''}`;
}
