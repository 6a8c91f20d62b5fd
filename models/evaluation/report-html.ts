/** The report as one HTML page. */
import type { Report } from './report';

export function reportHtml(report: Report): string {
  return JSON.stringify(report);
}
