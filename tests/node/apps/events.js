// events.py for Node: what it is compared with.
const cluster = require('cluster');
const http = require('http');
const [scenario, port] = [process.argv[2], Number(process.argv[3])];

function say(name, worker, ...rest) {
  console.log(JSON.stringify({
    event: name, worker: worker.id, state: worker.state,
    after: worker.exitedAfterDisconnect === undefined ? null : worker.exitedAfterDisconnect,
    rest, dead: worker.isDead(), connected: worker.isConnected(),
    workers: Object.keys(cluster.workers).map(Number),
  }));
}

function primary() {
  cluster.on('fork', (w) => say('fork', w));
  cluster.on('online', (w) => say('online', w));
  cluster.on('message', (w, m) => say('message', w, m));
  cluster.on('disconnect', (w) => say('disconnect', w));
  cluster.on('exit', (w, code, signal) => say('exit', w, code, signal));
  cluster.on('setup', () => console.log(JSON.stringify({ event: 'setup' })));
  const worker = cluster.fork();
  say('forked', worker);
  cluster.on('listening', (who, address) => {
    say('listening', who, address.address, address.port, address.addressType);
    if (scenario === 'kill') who.kill();
    else if (scenario === 'kill9') who.kill('SIGKILL');
    else if (scenario === 'disconnect') say('returned', who.disconnect());
    else if (scenario === 'disconnect-all') cluster.disconnect(() => say('all', who));
    else if (scenario === 'hang-up') who.process.disconnect();
    else who.send({ do: scenario });
  });
  if (scenario === 'kill-at-once') worker.kill();
  if (scenario === 'no-server') worker.on('online', () => worker.disconnect());
}

function worker() {
  if (scenario === 'throw') throw new Error('at import');
  if (scenario === 'exit') process.exit(3);
  if (scenario === 'exit-0') process.exit(0);
  process.on('message', (message) => {
    if (message.do === 'exit-later') process.exit(7);
    else if (message.do === 'throw-later') throw new Error('later');
    else if (message.do === 'worker-disconnects') cluster.worker.disconnect();
    else if (message.do === 'worker-kills') cluster.worker.kill();
    else if (message.do === 'echo') {
      process.send(message);
      cluster.worker.disconnect();
    }
  });
  if (scenario !== 'no-server') http.createServer(() => {}).listen(port, '127.0.0.1');
}

if (cluster.isPrimary) primary();
else worker();
