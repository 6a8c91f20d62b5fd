// A lock that belongs to a live process: a file that names its owner, created whole or not at all, and worthless once
// the owner is dead, however it died. CommonJS without dependencies, for the bootstrap needs it before anything is installed.
'use strict';
const fs = require('node:fs');
const path = require('node:path');

/** The start time of a process in clock ticks since boot; null where there is no /proc or no such process. */
function startTime(pid) {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The second field, the command in brackets, may hold spaces: count from its end. The start time is field 22.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? null;
  } catch {
    return null;
  }
}

/** Whether the process lives and, where that can be told, is the one that started then and not a later one of its number. */
function isAlive(pid, startedAt) {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (error.code !== 'EPERM') return false;
  }
  const now = startTime(pid);
  return !startedAt || now === null || now === startedAt;
}

function readOwner(file) {
  try {
    const [pid, startedAt] = fs.readFileSync(file, 'utf8').trim().split(' ');
    return { pid: Number(pid), startedAt: startedAt === '-' ? null : startedAt };
  } catch {
    return null;
  }
}

/** Takes the lock for this process. Answers null when it is taken, or else the pid of the live owner. */
function takeLock(file) {
  fs.mkdirSync(path.dirname(file), { recursive: true });
  const mine = `${file}.${process.pid}`;
  fs.writeFileSync(mine, `${process.pid} ${startTime(process.pid) ?? '-'}\n`);
  try {
    for (;;) {
      try {
        // link, unlike write, makes the file appear with its content.
        fs.linkSync(mine, file);
        return null;
      } catch (error) {
        if (error.code !== 'EEXIST') throw error;
      }
      const owner = readOwner(file);
      if (owner && isAlive(owner.pid, owner.startedAt)) return owner.pid;
      removeDeadLock(file, mine);
    }
  } finally {
    fs.rmSync(mine, { force: true });
  }
}

function removeDeadLock(file, mine) {
  const aside = `${mine}.dead`;
  try {
    fs.renameSync(file, aside);
  } catch {
    return; // another process was faster
  }
  // Between the look and the rename someone may have replaced the dead lock by a live one: then it is given back.
  const moved = readOwner(aside);
  if (moved && isAlive(moved.pid, moved.startedAt)) {
    try {
      fs.linkSync(aside, file);
    } catch {
      // A third process took it in between.
    }
  }
  fs.rmSync(aside, { force: true });
}

/** Gives the lock back; one that is not this process's is left alone. */
function releaseLock(file) {
  if (readOwner(file)?.pid === process.pid) fs.rmSync(file, { force: true });
}

module.exports = { takeLock, releaseLock, isAlive, startTime };
