// The app of contender.py for Node. `node contender.js PORT` listens by itself, `node contender.js
// PORT WORKERS` with Node's cluster and the rolling reload that pm2 does: on SIGHUP each worker's
// successor listens before it is disconnected.
'use strict';
const cluster = require('node:cluster');
const fs = require('node:fs');
const http = require('node:http');

const port = Number(process.env.CONTENDER_PORT || process.argv[2]);
const workers = Number(process.argv[3] || 0);
const body = 'Hello from one of the workers.\n';

function primary() {
  const leaving = new Set();
  for (let i = 0; i < workers; i++) cluster.fork();
  cluster.on('exit', (worker) => {
    if (!leaving.delete(worker.id)) cluster.fork();
  });
  let reloading = false;
  process.on('SIGHUP', async () => {
    if (reloading) return;
    reloading = true;
    for (const old of Object.values(cluster.workers)) {
      await new Promise((done) => cluster.fork().once('listening', done));
      leaving.add(old.id);
      old.disconnect();
    }
    reloading = false;
  });
  process.on('SIGTERM', () => process.exit(0));
}

function serve() {
  if (fs.existsSync('broken')) throw new Error('a broken deploy');
  const version = fs.readFileSync('version', 'utf8').trim();
  const answer = (response) => {
    response.writeHead(200, {
      'content-type': 'text/plain',
      'content-length': body.length,
      'x-pid': process.pid,
      'x-version': version,
    });
    response.end(body);
  };
  const server = http.createServer((request, response) => {
    const [, verb, amount] = request.url.split('?')[0].split('/');
    const until = Date.now() + Number(amount);
    if (verb === 'sleep') setTimeout(answer, Number(amount), response);
    else {
      while (verb === 'block' && Date.now() < until);
      answer(response);
    }
  });
  server.listen(port, '127.0.0.1');
  process.on('disconnect', () => process.exit(0));
  process.on(process.env.pm_id ? 'SIGINT' : 'SIGTERM', () => server.close(() => process.exit(0)));
}

if (workers && cluster.isPrimary) primary();
else serve();
