//! The numbers that Envoy's stats show of the filter, as `wasmcustom.latchkey.<name>`.

use crate::host::{Host, Metric, MetricKind};

/// The counts since the last tick: Envoy's stats are told then, not for each request.
#[derive(Debug, Default)]
pub struct Totals {
    /// Requests that have come to their end.
    pub requests: u64,
    /// The requests that the gate answered with an error.
    pub refused: u64,
    /// Answers that became a redirect.
    pub failovers: u64,
    /// Tokens that requests had.
    pub tokens_input: u64,
    /// Tokens that answers had.
    pub tokens_output: u64,
}

/// The numbers, as Envoy knows them.
#[derive(Debug)]
pub struct Metrics {
    /// The snapshot's revision.
    pub revision: Metric,
    /// Polls that were not answered with a page.
    pub polls_failed: Metric,
    /// Pages that were refused.
    pub pages_refused: Metric,
    /// Records of the snapshot that could not be read.
    pub records_unread: Metric,
    requests: Metric,
    refused: Metric,
    failovers: Metric,
    tokens_input: Metric,
    tokens_output: Metric,
    records_dropped: Metric,
}

// === impl Metrics ===

impl Metrics {
    /// Has the host show them; a second time changes nothing.
    pub fn define(host: &mut impl Host) -> Self {
        let mut counter = |name| host.define(MetricKind::Counter, name);
        Self {
            polls_failed: counter("polls_failed"),
            pages_refused: counter("pages_refused"),
            records_unread: counter("records_unread"),
            requests: counter("requests"),
            refused: counter("refused"),
            failovers: counter("failovers"),
            tokens_input: counter("tokens_input"),
            tokens_output: counter("tokens_output"),
            records_dropped: counter("records_dropped"),
            revision: host.define(MetricKind::Gauge, "snapshot_revision"),
        }
    }

    /// Adds what was counted. Nothing is said where nothing is to be added.
    pub fn count(&self, host: &mut impl Host, totals: &Totals, records_dropped: u64) {
        for (metric, number) in [
            (self.requests, totals.requests),
            (self.refused, totals.refused),
            (self.failovers, totals.failovers),
            (self.tokens_input, totals.tokens_input),
            (self.tokens_output, totals.tokens_output),
            (self.records_dropped, records_dropped),
        ] {
            if number > 0 {
                host.add(metric, number);
            }
        }
    }
}
