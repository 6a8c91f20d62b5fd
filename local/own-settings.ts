/** A person's settings for a local stack: all but the addresses of what the stack starts itself. */
import { readSettings, settingsProblems, settingsSchema } from '../blueprints/settings';
import type { SettingsOverrides } from './stack';

/** What the stack fills in, by section. */
const filledIn = {
  kafka: { brokers: ['127.0.0.1:9092'] },
  temporal: { address: '127.0.0.1:7233', uiAddress: 'http://127.0.0.1:8233' },
  postgres: { url: 'postgres://127.0.0.1:5432/understudy' },
  controlPlane: { xdsAddress: '127.0.0.1:18000', trafficAddress: '127.0.0.1:18001' },
} satisfies SettingsOverrides;

/** Throws an Error that names the file, the path within it and the reason: also of what is not for a person to say. */
export function loadOwnSettings(file: string): SettingsOverrides {
  const own: unknown = readSettings(file) ?? {};
  if (!isSections(own)) throw new Error(`${file}: (top): expected sections of settings, such as cells:`);
  const sections = Object.entries(filledIn);
  const taken = sections.flatMap(([section, values]) =>
    Object.keys(values)
      .filter((key) => isSections(own[section]) && key in own[section])
      .map((key) => `${section}.${key}`),
  );
  if (taken.length > 0)
    throw new Error(taken.map((path) => `${file}: ${path}: is filled in by the stack; leave it out`).join('\n'));
  const whole = sections.map(([section, values]) => [
    section,
    isSections(own[section]) ? { ...values, ...own[section] } : (own[section] ?? values),
  ]);
  const checked = settingsSchema.safeParse({ ...own, ...Object.fromEntries(whole) });
  if (!checked.success) throw new Error(settingsProblems(file, checked.error));
  return own;
}

function isSections(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
