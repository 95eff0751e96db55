/** Logs in the Prometheus text format. */
export function logMetrics(lostBytes: number): string[] {
  return ['# TYPE flotilla_log_lost_bytes_total counter', `flotilla_log_lost_bytes_total ${lostBytes}`];
}
