// The probe app for Node's cluster, with the rolling reload that pm2 does: on SIGHUP each worker's
// successor listens before it is disconnected.
'use strict';
const cluster = require('node:cluster');
const fs = require('node:fs');
const http = require('node:http');

const [port, number] = process.argv.slice(2).map(Number);

if (cluster.isPrimary) {
  const leaving = new Set();
  for (let i = 0; i < number; i++) cluster.fork();
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
} else {
  if (fs.existsSync('broken')) throw new Error('a broken deploy');
  const version = fs.readFileSync('version', 'utf8').trim();
  const answer = (response) => {
    const body = `pid ${process.pid} version ${version}\n`;
    response.writeHead(200, {
      'Content-Length': body.length,
      'X-Pid': process.pid,
      'X-Slot': cluster.worker.id,
      'X-Version': version,
    });
    response.end(body);
  };
  http.createServer((request, response) => {
    const [, verb, amount] = request.url.split('?')[0].split('/');
    if (verb === 'sleep') setTimeout(answer, Number(amount), response);
    else answer(response);
  }).listen(port, '127.0.0.1');
  process.on('disconnect', () => process.exit(0));
}
