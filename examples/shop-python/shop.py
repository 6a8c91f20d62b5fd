#!/usr/bin/env python3
"""A shop's catalogue: items of a slow SQLite file, kept in memory once they were read."""
import argparse
import json
import os
import sqlite3
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import telemetry

# A secret comes as the path of a file, never in the environment itself.
PASSWORD = open(os.environ['DATABASE_PASSWORD_FILE']).read().strip()
DATABASE = os.environ.get('SHOP_DB', 'items.db')
cache, lock = {}, threading.Lock()


def item(number):
    with lock:
        if number in cache:
            return cache[number]
    time.sleep(0.02)  # the slow database
    with sqlite3.connect(f'file:{DATABASE}?mode=ro', uri=True) as db:
        row = db.execute('select name, price from items where id = ?', (number,)).fetchone()
    if row is None:
        return None
    with lock:
        cache[number] = {'id': number, 'name': row[0], 'price': row[1]}
        return cache[number]


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_GET(self):
        if self.path == '/health':
            return self.answer(200, {'ok': True})
        with telemetry.timed() as outcome:
            number = self.path.removeprefix('/items/')
            found = item(int(number)) if number.isdigit() else None
            outcome['failed'] = False
            self.answer(200 if found else 404, found or {'error': 'no such item'})

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header('content-type', 'application/json')
        self.send_header('content-length', str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def fill():
    with sqlite3.connect(DATABASE) as db:
        db.execute('create table if not exists items (id integer primary key, name text, price integer)')
        db.executemany('insert or ignore into items values (?, ?, ?)', [(i, f'item {i}', 7 * i) for i in range(1, 501)])


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--port', type=int)
    parser.add_argument('--fill', action='store_true', help='make the database, and end')
    arguments = parser.parse_args()
    if arguments.fill:
        fill()
    else:
        telemetry.start()
        ThreadingHTTPServer(('127.0.0.1', arguments.port), Handler).serve_forever()
