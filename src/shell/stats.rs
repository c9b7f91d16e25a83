//! What Envoy's stats show of one VM, as `wasmcustom.latchkey.<name>`.

use super::envoy::Metric;

/// What was counted since the last tick: Envoy's stats are told then, not for each request.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) requests: u64,
    pub(super) refused: u64,
    pub(super) failovers: u64,
    pub(super) tokens_input: u64,
    pub(super) tokens_output: u64,
}

/// The numbers, as Envoy knows them.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) revision: Metric,
    pub(super) polls_failed: Metric,
    pub(super) pages_refused: Metric,
    requests: Metric,
    refused: Metric,
    failovers: Metric,
    tokens_input: Metric,
    tokens_output: Metric,
    records_dropped: Metric,
}

// === impl Metrics ===

impl Metrics {
    /// Has Envoy show them; a second time changes nothing.
    pub(super) fn define() -> Self {
        Self {
            revision: Metric::gauge("snapshot_revision"),
            polls_failed: Metric::counter("polls_failed"),
            pages_refused: Metric::counter("pages_refused"),
            requests: Metric::counter("requests"),
            refused: Metric::counter("refused"),
            failovers: Metric::counter("failovers"),
            tokens_input: Metric::counter("tokens_input"),
            tokens_output: Metric::counter("tokens_output"),
            records_dropped: Metric::counter("records_dropped"),
        }
    }

    /// Adds what was counted.
    pub(super) fn count(&self, totals: &Totals, records_dropped: u64) {
        for (metric, number) in [
            (self.requests, totals.requests),
            (self.refused, totals.refused),
            (self.failovers, totals.failovers),
            (self.tokens_input, totals.tokens_input),
            (self.tokens_output, totals.tokens_output),
            (self.records_dropped, records_dropped),
        ] {
            metric.add(number);
        }
    }
}
