// Displays openapi.json. It creates elements and text nodes only, so the description can't inject
// markup or script.
'use strict';

const METHODS = ['get', 'post', 'put', 'patch', 'delete'];
// Headers of every response, which the introduction describes.
const EVERYWHERE = ['X-Request-Id', 'Cache-Control', 'X-Content-Type-Options'];
const ORIGIN = location.origin;

/** Creates an element. Attributes that are false, null or undefined are omitted. */
function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(key, '');
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// ---- texts --------------------------------------------------------------------------------------

/** Renders the part of CommonMark that the description uses: paragraphs, lists with `-`, and code in backticks. */
function prose(text) {
  if (!text) return [];
  return text.trim().split(/\n\s*\n/).map((block) => {
    if (!block.startsWith('- ')) return el('p', {}, inline(block));
    const items = block.slice(2).split(/\n- /);
    return el('ul', {}, items.map((item) => el('li', {}, inline(item))));
  });
}

function inline(text) {
  return text.replace(/\s+/g, ' ').split(/`([^`]+)`/).map((part, n) => (n % 2 ? el('code', {}, part) : part));
}

// ---- the description ----------------------------------------------------------------------------

let api = {};

/** Resolves a `$ref`. Members next to it take precedence. */
function follow(value) {
  let found = value;
  const beside = {};
  while (found && typeof found === 'object' && typeof found.$ref === 'string') {
    const { $ref, ...rest } = found;
    Object.assign(beside, { ...rest, ...beside });
    found = $ref.slice(2).split('/').reduce((at, part) => at[part.replaceAll('~1', '/').replaceAll('~0', '~')], api);
  }
  return found && typeof found === 'object' && !Array.isArray(found) ? { ...found, ...beside } : found;
}

function nameOf(schema) {
  return typeof schema?.$ref === 'string' ? schema.$ref.split('/').at(-1) : null;
}

function operations() {
  return Object.entries(api.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => {
      const operation = item[method];
      return { method, path, operation, parameters: [...(item.parameters ?? []), ...(operation.parameters ?? [])].map(follow) };
    }));
}

// ---- schemas ------------------------------------------------------------------------------------

function kind(schema) {
  const s = follow(schema);
  if (s.const !== undefined) return JSON.stringify(s.const);
  if (s.enum && !isLong(s.enum)) return s.enum.map((one) => JSON.stringify(one)).join(' | ');
  const either = s.oneOf ?? s.anyOf;
  if (either) return either.map((one) => (follow(one).properties ? follow(one).title ?? nameOf(one) ?? 'object' : kind(one))).join(' | ');
  const type = [s.type ?? 'anything'].flat().join(' | ');
  if (s.contentMediaType) return `${type}, ${s.contentMediaType}`;
  if (s.type === 'array') return `array of ${nameOf(s.items) && isObject(follow(s.items)) ? nameOf(s.items) : kind(s.items)}`;
  return s.format ? `${type}, ${s.format}` : type;
}

function rules(schema) {
  const s = follow(schema);
  const limits = [];
  if (s.minLength > 1 || s.maxLength) limits.push(`${s.minLength ?? 0} to ${s.maxLength ?? 'any number of'} characters`);
  if (s.minimum !== undefined || s.maximum !== undefined) limits.push(`${s.minimum ?? '…'} to ${s.maximum ?? '…'}`);
  if (s.type === 'array' && s.maxItems) limits.push(s.minItems === s.maxItems ? `exactly ${s.maxItems}` : `${s.minItems ?? 0} to ${s.maxItems} items`);
  const parts = limits.length ? [limits.join(', ')] : [];
  if (s.enum && isLong(s.enum)) parts.push(['one of ', s.enum.map((one, n) => [n ? ', ' : '', el('code', {}, one)])]);
  // A pattern with control characters or the parts of a URL is not readable, so it is omitted.
  if (s.pattern && s.pattern.length < 40 && !s.pattern.includes('\\u')) parts.push([parts.length ? ', ' : '', el('code', {}, s.pattern)]);
  if (s.default !== undefined) parts.push([parts.length ? ', ' : '', 'default ', el('code', {}, JSON.stringify(s.default))]);
  return parts.length ? el('div', { class: 'rules' }, parts) : null;
}

function isLong(words) {
  return words.join('').length > 60;
}

function isObject(s) {
  return Boolean(s.properties || s.oneOf?.some((one) => isObject(follow(one))) || s.anyOf?.some((one) => isObject(follow(one))));
}

/** Renders the members of a schema, if it has any. `above` contains the names of the enclosing schemas. */
function inside(schema, above = []) {
  const s = follow(schema);
  const name = nameOf(schema);
  if (name && above.includes(name)) return null;
  const within = name ? [...above, name] : above;
  if (s.contentSchema) return inside(s.contentSchema, within);
  if (s.type === 'array') return inside(s.items, within);
  const either = s.oneOf ?? s.anyOf;
  if (either && isObject(s)) {
    return el('div', {}, either.filter((one) => isObject(follow(one))).map((one, n) => [
      el('p', { class: 'either' }, n ? 'or: ' : 'Either: ', el('strong', {}, follow(one).title ?? nameOf(one) ?? 'object')),
      inside(one, within),
    ]));
  }
  if (!s.properties) return null;
  const fields = Object.entries(s.properties).map(([key, value]) => field(key, value, s.required?.includes(key), within));
  return el('ul', { class: 'fields' }, fields);
}

function field(name, schema, required, above) {
  const s = follow(schema);
  const more = inside(schema, above);
  return el('li', {},
    el('div', { class: 'field' },
      el('code', {}, name),
      el('span', { class: 'kind' }, kind(schema)),
      required && el('span', { class: 'required' }, 'required')),
    prose(s.description), rules(schema),
    more && el('details', { class: 'inner' }, el('summary', {}, `Members of ${name}`), el('div', { class: 'body' }, more)));
}

// ---- an operation -------------------------------------------------------------------------------

function authorizationView(operation) {
  const schemes = operation.security ?? [];
  if (!schemes.length) return el('p', {}, 'Public; no authentication.');
  const ways = schemes.map((scheme) => {
    const [[name, scopes] = []] = Object.entries(scheme);
    if (name === 'apiToken') return ['an API token with ', scopes.map((scope, n) => [n ? ' and ' : '', el('code', {}, scope)])];
    if (name === 'requesterToken') return ['a token of the requester'];
    if (name === 'clientSecretBasic') return ['a client with ', el('code', {}, 'client_secret_basic')];
    if (!name) return ['a client with ', el('code', {}, 'private_key_jwt'), ' in the form'];
    return [name];
  });
  return el('ul', { class: 'authorization' }, ways.map((way) => el('li', {}, way)));
}

function parametersView(parameters) {
  if (!parameters.length) return null;
  const place = { path: 'in the path', query: 'in the query', header: 'header' };
  return [el('h4', {}, 'Parameters'), el('ul', { class: 'fields' }, parameters.map((parameter) =>
    el('li', {},
      el('div', { class: 'field' },
        el('code', {}, parameter.name),
        el('span', { class: 'kind' }, `${place[parameter.in]}, ${kind(parameter.schema)}`),
        parameter.required && el('span', { class: 'required' }, 'required')),
      prose(parameter.description), rules(parameter.schema))))];
}

function bodyView(body) {
  if (!body) return null;
  return Object.entries(body.content).map(([media, { schema }]) => [
    el('h4', {}, 'Body ', el('code', {}, media)),
    inside(schema),
  ]);
}

function responsesView(responses) {
  return [el('h4', {}, 'Responses'), Object.entries(responses).map(([status, response]) => {
    const resolved = follow(response);
    const tone = status < 300 ? 'good' : status < 500 ? 'bad' : 'warn';
    const headers = Object.keys(resolved.headers ?? {}).filter((header) => !EVERYWHERE.includes(header));
    return el('details', { class: 'status' },
      el('summary', {}, el('span', { class: `code ${tone}` }, status), el('span', {}, inline(resolved.description))),
      el('div', { class: 'body' },
        headers.length ? el('p', { class: 'headers' }, 'Headers: ', headers.map((header, n) => [n ? ', ' : '', el('code', {}, header)])) : null,
        Object.entries(resolved.content ?? {}).map(([media, content]) => [
          el('p', { class: 'headers' }, el('code', {}, media), ` ${kind(content.schema)}`),
          inside(content.schema),
          status < 300 ? null : examplesOf(content).map(({ title, value }) => figure(title, show(value))),
        ])));
  })];
}

function examplesOf(content) {
  if (content.example !== undefined) return [{ title: null, value: content.example }];
  return Object.values(content.examples ?? {}).map(({ summary, value }) => ({ title: summary, value }));
}

function show(value) {
  return typeof value === 'string' ? value : JSON.stringify(value, null, 2);
}

function figure(title, text) {
  const copy = navigator.clipboard && el('button', { class: 'copy', type: 'button' }, 'Copy');
  copy?.addEventListener('click', async () => {
    await navigator.clipboard.writeText(text);
    copy.textContent = 'Copied';
    setTimeout(() => { copy.textContent = 'Copy'; }, 1500);
  });
  return el('figure', {},
    el('figcaption', {}, el('span', {}, title ?? ''), copy),
    el('pre', { tabindex: 0 }, el('code', {}, text)));
}

/** Quotes a value for a shell. */
function quoted(text) {
  return `'${String(text).replaceAll("'", "'\\''")}'`;
}

/** Shortens a long token in a response. */
function shortened(value) {
  return typeof value === 'string' && /^eyJ[\w-]+\.[\w-]+\.[\w-]+$/.test(value) ? `${value.slice(0, 24)}…` : value;
}

function shorten(value) {
  if (Array.isArray(value)) return value.map(shorten);
  if (value && typeof value === 'object') return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, shorten(v)]));
  return shortened(value);
}

function curl({ method, path, operation, parameters }, example, media) {
  const filled = parameters.filter((p) => p.in === 'path').reduce((at, p) => {
    const value = p.example ?? follow(p.schema).examples?.[0] ?? follow(p.schema).enum?.[0] ?? p.name;
    return at.replace(`{${p.name}}`, encodeURIComponent(value));
  }, path);
  const query = parameters.filter((p) => p.in === 'query' && p.required)
    .map((p) => `${p.name}=${encodeURIComponent(p.example)}`).join('&');
  const lines = [`curl ${method === 'get' ? '' : `-X ${method.toUpperCase()} `}${quoted(ORIGIN + filled + (query ? `?${query}` : ''))}`];
  const names = (operation.security ?? []).flatMap((scheme) => Object.keys(scheme));
  const asserted = example && typeof example === 'object' && 'client_assertion' in example;
  if (names.includes('clientSecretBasic') && !asserted) lines.push('-u "$CLIENT_ID:$CLIENT_SECRET"');
  else if (names.includes('apiToken') && !asserted) lines.push('-H "Authorization: Bearer $API_TOKEN"');
  for (const p of parameters.filter((one) => one.in === 'header')) lines.push(`-H ${quoted(`${p.name}: ${p.example}`)}`);
  if (media === 'application/x-www-form-urlencoded') {
    const variables = { subject_token: '$SUBJECT_TOKEN', client_assertion: '$CLIENT_ASSERTION', token: '$TOKEN' };
    for (const [name, value] of Object.entries(example)) {
      lines.push(`--data-urlencode ${variables[name] ? `"${name}=${variables[name]}"` : quoted(`${name}=${value}`)}`);
    }
  } else if (media) {
    lines.push(`-H ${quoted(`Content-Type: ${media}`)}`, `-d ${quoted(JSON.stringify(example, null, 2))}`);
  }
  return lines.join(' \\\n  ');
}

function examplesView(entry) {
  const { operation } = entry;
  const [media, content] = Object.entries(operation.requestBody?.content ?? {})[0] ?? [];
  const bodies = content ? examplesOf(content) : [{ title: null, value: undefined }];
  const requests = bodies.map(({ title, value }) => figure(title ?? 'With curl', curl(entry, value, media)));
  const responses = Object.entries(operation.responses).filter(([status]) => status < 300).flatMap(([status, response]) =>
    Object.entries(follow(response).content ?? {}).flatMap(([type, of]) =>
      examplesOf(of).map(({ title, value }) => figure(`${status} ${title ?? type}`, show(shorten(value))))));
  return el('div', {}, el('h4', {}, 'Request'), requests, responses.length ? [el('h4', {}, 'Response'), responses] : null);
}

function operationView(entry) {
  const { method, path, operation, parameters } = entry;
  const id = operation.operationId;
  return el('article', { id, 'aria-labelledby': `${id}-title` },
    el('header', {},
      el('h3', { id: `${id}-title` }, el('a', { class: 'anchor', href: `#${id}` }, operation.summary)),
      el('p', { class: 'route' }, el('span', { class: `method ${method}` }, method.toUpperCase()), el('code', {}, path))),
    el('div', { class: 'columns' },
      el('div', { class: 'description' },
        prose(operation.description),
        el('h4', {}, 'Authorization'), authorizationView(operation),
        parametersView(parameters),
        bodyView(operation.requestBody),
        responsesView(operation.responses)),
      el('div', { class: 'examples' }, examplesView(entry))));
}

// ---- the page -----------------------------------------------------------------------------------

function introduction() {
  const { title, version, summary, description } = api.info;
  const schemes = Object.values(api.components.securitySchemes);
  return el('section', { 'aria-label': 'Introduction' },
    el('h1', {}, title, ' ', el('span', { class: 'version' }, version)),
    el('p', { class: 'lead' }, summary),
    prose(description),
    el('h2', {}, 'Credentials'),
    schemes.map((scheme) => prose(scheme.description)));
}

function render() {
  const all = operations();
  const content = document.getElementById('content');
  const nav = document.getElementById('nav');
  content.replaceChildren(introduction());
  nav.replaceChildren();
  const groups = api.tags.map((tag) => {
    const own = all.filter((entry) => entry.operation.tags.includes(tag.name));
    const id = `tag-${tag.name.toLowerCase()}`;
    const articles = own.map((entry) => ({ entry, article: operationView(entry) }));
    const section = el('section', { class: 'tag', 'aria-labelledby': id },
      el('h2', { id }, el('a', { class: 'anchor', href: `#${id}` }, tag.name)),
      prose(tag.description),
      articles.map(({ article }) => article));
    const links = articles.map(({ entry, article }) => {
      const item = el('li', {}, el('a', { href: `#${entry.operation.operationId}` },
        el('span', { class: `method ${entry.method}` }, entry.method === 'delete' ? 'DEL' : entry.method.toUpperCase()),
        el('span', {}, entry.operation.summary)));
      const text = [entry.method, entry.path, tag.name, entry.operation.operationId, entry.operation.summary, entry.operation.description]
        .join(' ').toLowerCase();
      return { item, article, text };
    });
    const list = el('div', {}, el('h2', {}, el('a', { href: `#${id}` }, tag.name)), el('ul', {}, links.map(({ item }) => item)));
    content.append(section);
    nav.append(list);
    return { section, list, links };
  });
  return groups;
}

function searchable(groups) {
  const input = document.getElementById('search');
  const found = document.getElementById('found');
  const intro = document.querySelector('#content > section');
  const search = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const { section, list, links } of groups) {
      let here = 0;
      for (const { item, article, text } of links) {
        const fits = words.every((word) => text.includes(word));
        item.hidden = !fits;
        article.hidden = !fits;
        here += fits ? 1 : 0;
      }
      section.hidden = !here;
      list.hidden = !here;
      count += here;
    }
    intro.hidden = words.length > 0;
    found.textContent = words.length ? `${count === 0 ? 'No operation' : count === 1 ? 'One operation' : `${count} operations`} found.` : '';
  };
  input.addEventListener('input', () => { search(); scrollTo({ top: 0 }); });
  input.addEventListener('keydown', (event) => {
    if (event.key === 'Enter') groups.flatMap(({ links }) => links).find(({ article }) => !article.hidden)?.article.querySelector('h3 a').click();
    if (event.key === 'Escape') { input.value = ''; search(); }
  });
  document.addEventListener('keydown', (event) => {
    const typing = event.target instanceof HTMLInputElement;
    if (event.key === '/' && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      input.focus();
      input.select();
    }
  });
  // A link to an operation that the search hides resets the search.
  addEventListener('hashchange', () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target?.closest('[hidden]')) { input.value = ''; search(); target.scrollIntoView(); }
  });
}

/** Marks the operation in view in the list. */
function followReading(groups) {
  const links = new Map(groups.flatMap((group) => group.links.map(({ item, article }) => [article, item.firstChild])));
  const observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const link = links.get(target);
      if (isIntersecting) link.setAttribute('aria-current', 'true');
      else link.removeAttribute('aria-current');
    }
  }, { rootMargin: '-20% 0px -75% 0px' });
  for (const article of links.keys()) observer.observe(article);
}

/** Keeps the list open on a wide screen. On a narrow screen, choosing an operation closes it. */
function fold() {
  const menu = document.getElementById('menu');
  const narrow = matchMedia('(max-width: 60rem)');
  const set = () => { menu.open = !narrow.matches; };
  narrow.addEventListener('change', set);
  menu.addEventListener('click', (event) => { if (narrow.matches && event.target.closest('a')) menu.open = false; });
  set();
}

async function start() {
  fold();
  try {
    const response = await fetch('openapi.json');
    if (!response.ok) throw new Error(`status ${response.status}`);
    api = await response.json();
  } catch (error) {
    document.getElementById('content').replaceChildren(
      el('p', {}, `Loading the API description failed: ${error.message}. `, el('a', { href: 'openapi.yaml' }, 'Open it as a file.')));
    return;
  }
  const groups = render();
  searchable(groups);
  followReading(groups);
  // The target of the fragment did not exist when the browser loaded the page.
  if (location.hash) location.replace(location.hash);
}

start();
