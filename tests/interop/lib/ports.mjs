// A free TCP port on the loopback interface. Errand and the MCP servers must know their URL before
// they listen. The port is below the ephemeral range; otherwise an outgoing connection of the suite
// could take it before the server binds it.
import net from 'node:net';

const LOWEST = 20_000;
const HIGHEST = 32_000;
const given = new Set();

export async function freePort() {
  for (let attempt = 0; attempt < 100; attempt++) {
    const port = LOWEST + Math.floor(Math.random() * (HIGHEST - LOWEST));
    if (!given.has(port) && (await canListen(port))) {
      given.add(port);
      return port;
    }
  }
  throw new Error(`no free port between ${LOWEST} and ${HIGHEST}`);
}

function canListen(port) {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
