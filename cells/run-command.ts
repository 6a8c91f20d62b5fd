/** Runs a command with a text on its standard input, and ends it with all it started when its time is over. */
import { spawn } from 'node:child_process';

export interface CommandRun {
  command: readonly string[];
  input: string;
  timeoutMs: number;
  environment: Readonly<Record<string, string>>;
  workingDirectory?: string | undefined;
}

export interface CommandEnd {
  code: number;
  output: string;
  /** The end of its standard error. */
  complaint: string;
}

const maxOutputBytes = 8 * 1024 * 1024;
const maxComplaintBytes = 4096;

/** Rejects, with a sentence, if the command cannot be started, does not end in time, is killed or says too much. */
export function runCommand({
  command,
  input,
  timeoutMs,
  environment,
  workingDirectory,
}: CommandRun): Promise<CommandEnd> {
  const [program = '', ...args] = command;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      cwd: workingDirectory,
      env: { ...environment },
      stdio: ['pipe', 'pipe', 'pipe'],
      // A group of its own, so that what it started can be ended with it.
      detached: true,
    });
    const output: Buffer[] = [];
    let outputBytes = 0;
    let complaint = '';
    let trouble: string | undefined;
    const end = (why: string) => {
      trouble ??= why;
      killGroup(child.pid);
    };
    const timer = setTimeout(() => end(`did not answer within ${timeoutMs / 1000} s`), timeoutMs);
    child.stdout.on('data', (chunk: Buffer) => {
      outputBytes += chunk.length;
      if (outputBytes > maxOutputBytes) end(`answered more than ${maxOutputBytes} bytes`);
      else output.push(chunk);
    });
    child.stderr.on(
      'data',
      (chunk: Buffer) => (complaint = (complaint + chunk.toString('utf8')).slice(-maxComplaintBytes)),
    );
    // A command that does not read its input is none the worse for it.
    child.stdin.on('error', () => undefined);
    child.stdin.end(input);
    child.once('error', (error) => {
      clearTimeout(timer);
      reject(new Error(`cannot be run: ${error.message}`));
    });
    // Not `close`: a child of its own that it left behind may hold the streams open for ever.
    child.once('exit', (code, signal) => {
      const settle = () => {
        clearTimeout(timer);
        child.stdout.destroy();
        child.stderr.destroy();
        const words = complaint.trim();
        if (trouble) reject(new Error(trouble));
        else if (code === null) reject(new Error(`was ended by ${signal}${words ? `: ${words}` : ''}`));
        else resolve({ code, output: Buffer.concat(output).toString('utf8'), complaint: words });
      };
      // What it wrote last is still on its way; it gets a moment unless the streams end by themselves.
      const moment = setTimeout(settle, 500);
      child.once('close', () => {
        clearTimeout(moment);
        settle();
      });
    });
  });
}

function killGroup(leader: number | undefined): void {
  try {
    if (leader !== undefined) process.kill(-leader, 'SIGKILL');
  } catch {
    // It has ended.
  }
}
