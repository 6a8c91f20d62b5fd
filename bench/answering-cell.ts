/** The smallest cell there is: answers every request. Run as `node dist/bench/answering-cell.js PORT`. */
import { createServer } from 'node:http';

createServer((_, response) => response.end('ok')).listen(Number(process.argv[2]), '127.0.0.1');
