// Says which programs that Understudy builds upon are missing on this machine, and what to install for each.
'use strict';
const { spawn } = require('node:child_process');

const wanted = {
  node: {
    what: 'Node.js 20.19 or newer',
    install: 'install it by your package manager or a version manager such as nvm or fnm',
    look: async () => atLeast(process.versions.node, [20, 19]) || `this is ${process.versions.node}`,
  },
  npm: {
    what: 'npm',
    install: 'it comes with Node.js; on Debian and Ubuntu: apt-get install npm',
    look: async () => (await output('npm', ['--version'])) !== null,
  },
  python: {
    what: 'Python 3',
    install: 'Debian and Ubuntu: apt-get install python3 python3-pip; macOS: brew install python',
    look: async () => (await output('python3', ['--version'])) !== null,
  },
  pip: {
    what: 'pip for Python 3',
    install: 'Debian and Ubuntu: apt-get install python3-pip; elsewhere: python3 -m ensurepip',
    look: async () => (await output('python3', ['-m', 'pip', '--version'])) !== null,
  },
  java: {
    what: 'Java 17 or newer',
    install: 'Debian and Ubuntu: apt-get install openjdk-17-jre-headless; macOS: brew install openjdk@17',
    look: async () => {
      const text = await output('java', ['-version']);
      if (text === null) return false;
      const version = /version "([\d.]+)/.exec(text)?.[1] ?? '0';
      return atLeast(version, [17]) || `\`java\` is ${version}`;
    },
  },
  maven: {
    what: 'Maven (mvn)',
    install: 'Debian and Ubuntu: apt-get install maven; macOS: brew install maven',
    look: async () => (await output('mvn', ['--version'])) !== null,
  },
};

/** One line for each of `names` that is not there or too old; an empty list if all is well. */
async function missingPrerequisites(names) {
  const lines = await Promise.all(
    names.map(async (name) => {
      const { what, install, look } = wanted[name];
      const found = await look();
      if (found === true) return null;
      const state = typeof found === 'string' ? `is needed, but ${found}` : 'is needed and was not found';
      return `${what} ${state}: ${install}.`;
    }),
  );
  return lines.filter((line) => line !== null);
}

function atLeast(version, minimum) {
  const parts = version.split('.').map(Number);
  for (const [i, least] of minimum.entries()) {
    if ((parts[i] ?? 0) !== least) return (parts[i] ?? 0) > least;
  }
  return true;
}

/** What the program says, on either stream; null if it cannot be run or fails. */
function output(command, args) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let text = '';
    child.stdout.on('data', (chunk) => (text += chunk));
    child.stderr.on('data', (chunk) => (text += chunk));
    child.on('error', () => resolve(null));
    child.on('close', (code) => resolve(code === 0 ? text : null));
  });
}

module.exports = { missingPrerequisites };
