//! The refresher's counters, for Prometheus.
//!
//! The numbers begin with the process, as Prometheus expects of counters, but for those by Envoy process, which the store
//! keeps. Labels hold ids and words of ours, and the node ids of Envoys; each has at most [`MAX_VALUES`] values.
//!
//! docs/metrics.md lists the metrics.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use latchkey::meter::MAX_TOKENS;
use latchkey::request::record::RequestRecord;
use latchkey::verdict::Scope;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::clock::{Clock, SystemClock, UnixMillis};
use crate::credential::{Credential, CredentialKind, Renewal};
use crate::egress::Proxy;
use crate::listen::host::HostNames;
use crate::oauth::answer::Outcome;
use crate::progress::EnvoyView;
use crate::refresh::endpoint::TokenEndpoint;
use crate::standing::{Standing, ends_soon, stuck};
use crate::store::{Account, EnvoyRequests, Health, Store};

/// The most values of one label: a team's accounts and more. What comes after them counts as [`OTHER`].
pub const MAX_VALUES: usize = 500;
/// Stands for the values beyond [`MAX_VALUES`].
const OTHER: &str = "other";
/// Stands for an account or platform that a request did not have.
const NONE: &str = "none";
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The numbers. Clones are the same ones.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    requests: Family<OfRequest, Counter>,
    tokens: Family<OfTokens, Counter>,
    records: Family<OfOutcome, Counter>,
    refreshes: Family<OfOutcome, Counter>,
    polls: Counter,
    accounts: Family<OfStatus, Gauge>,
    ends: Family<OfAccount, Gauge>,
    failing: Family<OfFailing, Gauge>,
    cooling_down: Family<OfAccount, Gauge>,
    quota: Family<OfWindow, Gauge<f64, AtomicU64>>,
    begun: Family<OfEnvoy, Counter>,
    recorded: Family<OfEnvoy, Counter>,
    revision: Gauge,
    left_out: Gauge,
    held: Family<OfEnvoy, Gauge>,
    behind: Family<OfEnvoy, Gauge>,
    gone: Family<OfEnvoy, Gauge>,
    unread: Family<OfEnvoy, Gauge>,
    account_ids: Values,
    platform_ids: Values,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRequest {
    platform: String,
    account: String,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTokens {
    platform: String,
    account: String,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOutcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStatus {
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfAccount {
    account: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfFailing {
    account: String,
    how: &'static str,
    stuck: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfWindow {
    account: String,
    window: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfEnvoy {
    node: String,
    instance: String,
}

/// The values that a label has had.
#[derive(Debug, Default)]
struct Values(Mutex<HashSet<String>>);

impl Values {
    /// The value as it is shown: itself, or [`OTHER`] where there are too many already.
    fn shown(&self, value: Option<&str>) -> String {
        let value = value.unwrap_or(NONE);
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.contains(value) {
            if seen.len() >= MAX_VALUES {
                return OTHER.to_owned();
            }
            seen.insert(value.to_owned());
        }
        value.to_owned()
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut registry = Registry::with_prefix("latchkey");
        let inner = Inner {
            requests: Family::default(),
            tokens: Family::default(),
            records: Family::default(),
            refreshes: Family::default(),
            polls: Counter::default(),
            accounts: Family::default(),
            ends: Family::default(),
            failing: Family::default(),
            cooling_down: Family::default(),
            quota: Family::default(),
            begun: Family::default(),
            recorded: Family::default(),
            revision: Gauge::default(),
            left_out: Gauge::default(),
            held: Family::default(),
            behind: Family::default(),
            gone: Family::default(),
            unread: Family::default(),
            account_ids: Values::default(),
            platform_ids: Values::default(),
            registry: Registry::default(),
        };
        let requests =
            "Requests by the class of their status; none: the caller went away before an answer";
        registry.register("requests", requests, inner.requests.clone());
        let tokens = "Tokens; cached is a part of input, reasoning a part of output";
        registry.register("tokens", tokens, inner.tokens.clone());
        let records =
            "Records that came from Envoy; one may stand for several requests that were refused";
        registry.register("records", records, inner.records.clone());
        let refreshes = "Calls to token endpoints";
        registry.register("refreshes", refreshes, inner.refreshes.clone());
        registry.register("polls", "Polls of the snapshot", inner.polls.clone());
        registry.register("accounts", "Accounts by status", inner.accounts.clone());
        let ends = "When an account that ends for good within 7 days does so, in Unix seconds";
        registry.register("account_ends_timestamp_seconds", ends, inner.ends.clone());
        let failing = "Since when the refreshes of an account fail, in Unix seconds; stuck: a person should see to it";
        registry.register(
            "account_refresh_failing_since_timestamp_seconds",
            failing,
            inner.failing.clone(),
        );
        let cooling_down =
            "When an account that cools down as a whole is back or tried again, in Unix seconds";
        registry.register(
            "account_cooling_down_until_timestamp_seconds",
            cooling_down,
            inner.cooling_down.clone(),
        );
        let quota = "The used share of a window of an account's quota, from 0; over 1 where its platform lets it overdraw";
        registry.register("account_quota_used_ratio", quota, inner.quota.clone());
        let begun = "Requests that an Envoy process let in; those that are not recorded are under way or died with it";
        registry.register("requests_begun", begun, inner.begun.clone());
        let recorded = "Requests of an Envoy process that are recorded";
        registry.register("requests_recorded", recorded, inner.recorded.clone());
        let revision = "The revision of the snapshot";
        registry.register("snapshot_revision", revision, inner.revision.clone());
        let left_out = "Records that cannot go to Envoy and are out of use";
        registry.register("records_left_out", left_out, inner.left_out.clone());
        let held = "The revision of the snapshot that an Envoy holds";
        registry.register("envoy_revision", held, inner.held.clone());
        let behind = "Seconds for which an Envoy has stayed behind; 0: it does not";
        registry.register("envoy_behind_seconds", behind, inner.behind.clone());
        let gone =
            "Seconds for which an Envoy has not polled; 0: it does. After an hour it is forgotten";
        registry.register("envoy_gone_seconds", gone, inner.gone.clone());
        let unread = "Records that an Envoy cannot read";
        registry.register("envoy_unread_records", unread, inner.unread.clone());
        Metrics(Arc::new(Inner { registry, ..inner }))
    }
}

impl Metrics {
    /// Counts records that were taken, and how many of their batch could not be read.
    pub fn ingested(&self, records: &[RequestRecord], malformed: usize) {
        for record in records {
            self.request(record);
        }
        self.records("ingested", records.len());
        self.records("malformed", malformed);
    }

    /// Counts records that had been taken before.
    pub fn repeated(&self, records: &[RequestRecord]) {
        self.records("duplicate", records.len());
    }

    /// Counts a poll of the snapshot.
    pub fn polled(&self) {
        self.0.polls.inc();
    }

    fn records(&self, outcome: &'static str, number: usize) {
        let records = self.0.records.get_or_create(&OfOutcome { outcome });
        records.inc_by(number as u64);
    }

    fn request(&self, record: &RequestRecord) {
        let Inner {
            requests,
            tokens,
            account_ids,
            platform_ids,
            ..
        } = &*self.0;
        let account = account_ids.shown(record.account.as_ref().map(|id| id.as_str()));
        let platform = platform_ids.shown(record.platform.as_ref().map(|id| id.as_str()));
        let status = match record.status {
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            500..=599 => "5xx",
            _ => NONE,
        };
        if let Some(usage) = record.usage {
            for (kind, number) in [
                ("input", usage.input),
                ("cached", usage.cached_input),
                ("output", usage.output),
                ("reasoning", usage.reasoning),
            ] {
                let (platform, account) = (platform.clone(), account.clone());
                let labels = OfTokens {
                    platform,
                    account,
                    kind,
                };
                tokens.get_or_create(&labels).inc_by(number.min(MAX_TOKENS));
            }
        }
        let labels = OfRequest {
            platform,
            account,
            status,
        };
        requests
            .get_or_create(&labels)
            .inc_by(record.count.get().into());
    }

    /// Shows the sums that the store keeps by Envoy process; those of the processes that it forgot go.
    fn show_envoys(&self, envoys: &[EnvoyRequests]) {
        let Inner {
            begun, recorded, ..
        } = &*self.0;
        let labels = |envoy: &EnvoyRequests| OfEnvoy {
            node: envoy.node.clone().unwrap_or_else(|| NONE.to_owned()),
            instance: envoy.instance.clone(),
        };
        for (family, number) in [
            (begun, (|envoy| envoy.begun) as fn(&EnvoyRequests) -> u64),
            (recorded, |envoy| envoy.recorded),
        ] {
            family.clear();
            for envoy in envoys {
                let counter = family.get_or_create(&labels(envoy));
                counter.inner().store(number(envoy), Ordering::Relaxed);
            }
        }
    }

    /// Shows how far each Envoy is; those that are forgotten go.
    pub fn show_progress(&self, envoys: &[EnvoyView]) {
        let Inner {
            held,
            behind,
            gone,
            unread,
            ..
        } = &*self.0;
        for (family, number) in [
            (held, (|envoy| envoy.revision) as fn(&EnvoyView) -> u64),
            (behind, |envoy| envoy.behind_seconds.unwrap_or_default()),
            (gone, |envoy| envoy.gone_seconds.unwrap_or_default()),
            (unread, |envoy| envoy.unread),
        ] {
            family.clear();
            for envoy in envoys.iter().take(MAX_VALUES) {
                let labels = OfEnvoy {
                    node: envoy.node.clone().unwrap_or_else(|| NONE.to_owned()),
                    instance: envoy.instance.clone(),
                };
                let gauge = family.get_or_create(&labels);
                gauge.set(i64::try_from(number(envoy)).unwrap_or(i64::MAX));
            }
        }
    }

    /// Shows the accounts whose refreshes fail.
    fn show_failing(&self, accounts: &[Account], now: UnixMillis) {
        self.0.failing.clear();
        let failing = accounts.iter().filter_map(|account| {
            let failing = account.failing.as_ref()?;
            let is_stuck = stuck(account, now).is_some();
            let labels = OfFailing {
                account: account.id.to_string(),
                how: failing.how.as_str(),
                stuck: if is_stuck { "yes" } else { "no" },
            };
            Some((labels, failing.since))
        });
        for (labels, since) in failing.take(MAX_VALUES) {
            let gauge = self.0.failing.get_or_create(&labels);
            gauge.set(since.0 / 1_000);
        }
    }

    /// Shows the accounts that cool down, and what is used of every account's quota. `health` is by account.
    fn show_health(&self, health: &BTreeMap<String, Health>, now: UnixMillis) {
        let Inner {
            cooling_down,
            quota,
            ..
        } = &*self.0;
        let millis = u64::try_from(now.0).unwrap_or(0);
        cooling_down.clear();
        quota.clear();
        for (account, health) in health.iter().take(MAX_VALUES) {
            let account = || account.clone();
            let entries = health.entries.iter();
            let whole = entries.filter(|one| one.scope == Scope::Account && !one.has_ended(millis));
            if let Some(until) = whole.map(|one| one.until).max() {
                let labels = OfAccount { account: account() };
                let gauge = cooling_down.get_or_create(&labels);
                gauge.set(i64::try_from(until / 1_000).unwrap_or(i64::MAX));
            }
            for window in &health.quota.windows {
                let labels = OfWindow {
                    account: account(),
                    window: window.name.as_str().to_owned(),
                };
                let has_begun_anew = window.resets_at.is_some_and(|at| at <= millis);
                let used = if has_begun_anew {
                    0.0
                } else {
                    window.used_percent
                };
                quota.get_or_create(&labels).set(used / 100.0);
            }
        }
    }

    /// The page that Prometheus reads.
    ///
    /// # Errors
    /// If the store fails.
    async fn page(&self, store: &Store, now: UnixMillis) -> crate::store::Result<String> {
        let accounts = store.accounts().await?;
        let (_, revision) = store.head().await?;
        self.show_envoys(&store.envoys(UnixMillis(0), MAX_VALUES).await?);
        for standing in Standing::STORED {
            let is_so = |account: &&Account| Standing::stored(account, now) == standing;
            let count = accounts.iter().filter(is_so);
            let status = standing.as_str();
            let gauge = self.0.accounts.get_or_create(&OfStatus { status });
            gauge.set(i64::try_from(count.count()).unwrap_or(i64::MAX));
        }
        self.0.ends.clear();
        let soon = accounts.iter().filter_map(|account| {
            let end = ends_soon(account, now)?;
            Some((account.id.to_string(), end))
        });
        for (account, end) in soon.take(MAX_VALUES) {
            let gauge = self.0.ends.get_or_create(&OfAccount { account });
            gauge.set(end.0 / 1_000);
        }
        self.show_failing(&accounts, now);
        self.show_health(&store.health().await?, now);
        self.0
            .revision
            .set(i64::try_from(revision).unwrap_or(i64::MAX));
        let left_out = store.count_left_out();
        self.0
            .left_out
            .set(i64::try_from(left_out).unwrap_or(i64::MAX));
        let mut page = String::new();
        // Writing to a String does not fail.
        let _ = text::encode(&mut page, &self.0.registry);
        Ok(page)
    }
}

/// The page of metrics over TCP.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The address to listen on.
    pub at: SocketAddr,
    /// The names by which it may be asked for.
    pub names: HostNames,
}

/// `GET /metrics`, and nothing else.
pub fn router(metrics: Metrics, store: Store) -> Router {
    Router::new()
        .route("/metrics", get(show))
        .with_state((metrics, store))
}

async fn show(State((metrics, store)): State<(Metrics, Store)>) -> Response {
    match metrics.page(&store, SystemClock.now()).await {
        Ok(page) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], page).into_response(),
        Err(error) => {
            tracing::warn!(%error, "cannot show metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// A token endpoint whose calls are counted.
#[derive(Debug)]
pub struct Counted<E>(pub E, pub Metrics);

impl<E: TokenEndpoint> TokenEndpoint for Counted<E> {
    fn renewal(&self, platform: &str, kind: CredentialKind) -> Renewal {
        self.0.renewal(platform, kind)
    }

    async fn refresh(
        &self,
        platform: &str,
        credential: &Credential,
        proxy: Option<&Proxy>,
    ) -> Outcome {
        let Counted(endpoint, metrics) = self;
        let outcome = endpoint.refresh(platform, credential, proxy).await;
        let word = match &outcome {
            Outcome::Fresh(_) => "ok",
            Outcome::Permanent { .. } => "login_ended",
            Outcome::Transient { .. }
            | Outcome::NotSent { .. }
            | Outcome::Page { .. }
            | Outcome::Unknown { .. } => "failed",
        };
        let labels = OfOutcome { outcome: word };
        metrics.0.refreshes.get_or_create(&labels).inc();
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use latchkey::sync::report::Report;
    use serde_json::json;

    use super::*;
    use crate::credential::{Credential, OAuthTokens};
    use crate::failing::{Failing, Failure};
    use crate::refresh::ledger::{Claimed, Ledger, Retry};
    use crate::state::StateDir;
    use crate::store::{BatchId, NewAccount, Terms};

    fn record(account: &str, status: u16) -> RequestRecord {
        let record = json!({
            "at": 5, "key": "key_1", "pool": "default", "account": account, "platform": "openai", "dialect": "chat",
            "status": status, "attempts": 1, "duration_ms": 9, "completeness": "whole",
            "usage": {"input": 10, "output": 5, "cached_input": 4, "cache_write": 0, "reasoning": 2, "total": 15},
        });
        serde_json::from_value(record).unwrap()
    }

    #[tokio::test]
    async fn the_page_counts_and_its_labels_are_bounded() {
        let outer = tempfile::tempdir().unwrap();
        let state = StateDir::open(&outer.path().join("state")).unwrap();
        let store = Store::open(&state, crate::keys::fixed(1)).await.unwrap();
        let metrics = Metrics::default();
        metrics.ingested(&[record("acc_1", 200), record("acc_1", 200)], 3);
        let mut refused = record("acc_1", 429);
        refused.count = 7.try_into().unwrap();
        refused.usage = None;
        metrics.ingested(&[refused], 0);
        metrics.repeated(&[record("acc_1", 200)]);
        // Of a filter that believes platforms everything; a sum of two such would overflow.
        let mut odd = record("acc_odd", 200);
        odd.usage.as_mut().unwrap().input = u64::MAX;
        metrics.ingested(&[odd.clone(), odd], 0);
        metrics.polled();
        let many: Vec<_> = (0..2 * MAX_VALUES)
            .map(|number| record(&format!("acc_many_{number}"), 0))
            .collect();
        metrics.ingested(&many, 0);
        let begun =
            json!({"instance": "0123456789abcdef".repeat(2), "node": "latchkey", "requests": 9});
        let begun = serde_json::from_value(begun).unwrap();
        let batch = BatchId::parse(&"1".repeat(32)).unwrap();
        let records = [record("acc_1", 200)];
        store
            .take_records(batch, &records, Some(&begun), UnixMillis(5))
            .await
            .unwrap();
        metrics.show_progress(&[EnvoyView {
            instance: "0123456789abcdef".repeat(2),
            node: None,
            revision: 7,
            unread: 2,
            behind_seconds: Some(9),
            why: Some("it cannot read 2 records".to_owned()),
            gone_seconds: None,
        }]);
        let page = metrics.page(&store, UnixMillis(0)).await.unwrap();
        for line in [
            "latchkey_envoy_behind_seconds{node=\"none\",instance=\"0123456789abcdef0123456789abcdef\"} 9",
            "latchkey_envoy_gone_seconds{node=\"none\",instance=\"0123456789abcdef0123456789abcdef\"} 0",
            "latchkey_envoy_revision{node=\"none\",instance=\"0123456789abcdef0123456789abcdef\"} 7",
            "latchkey_envoy_unread_records{node=\"none\",instance=\"0123456789abcdef0123456789abcdef\"} 2",
            "latchkey_requests_total{platform=\"openai\",account=\"acc_1\",status=\"2xx\"} 2",
            "latchkey_requests_total{platform=\"openai\",account=\"acc_1\",status=\"4xx\"} 7",
            "latchkey_tokens_total{platform=\"openai\",account=\"acc_1\",kind=\"cached\"} 8",
            "latchkey_tokens_total{platform=\"openai\",account=\"acc_odd\",kind=\"input\"} 33554432",
            "latchkey_records_total{outcome=\"malformed\"} 3",
            "latchkey_records_total{outcome=\"duplicate\"} 1",
            "latchkey_records_total{outcome=\"ingested\"} 1005",
            "latchkey_requests_total{platform=\"openai\",account=\"other\",status=\"none\"} 502",
            "latchkey_accounts{status=\"needs_login\"} 0",
            "latchkey_polls_total 1",
            "latchkey_requests_begun_total{node=\"latchkey\",instance=\"0123456789abcdef0123456789abcdef\"} 9",
            "latchkey_requests_recorded_total{node=\"latchkey\",instance=\"0123456789abcdef0123456789abcdef\"} 1",
            "latchkey_snapshot_revision 1",
            "latchkey_records_left_out 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}: {page}");
        }
        let accounts = page.matches("latchkey_requests_total{").count();
        assert_eq!(accounts, MAX_VALUES + 2);
    }

    #[tokio::test]
    async fn the_docs_have_each_metric_and_no_other() {
        let outer = tempfile::tempdir().unwrap();
        let state = StateDir::open(&outer.path().join("state")).unwrap();
        let store = Store::open(&state, crate::keys::fixed(1)).await.unwrap();
        let metrics = Metrics::default();
        let page = metrics.page(&store, UnixMillis(0)).await.unwrap();
        assert!(page.contains("# TYPE latchkey_accounts gauge"), "{page}");
        show_one_of_each(&metrics.0);
        let mut page = String::new();
        text::encode(&mut page, &metrics.0.registry).unwrap();
        let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let name = |line: &str| match line.split_once(' ') {
            Some((name, "counter")) => format!("{name}_total"),
            Some((name, _)) => name.to_owned(),
            None => panic!("{line}"),
        };
        let mut shown: Vec<String> = types.map(name).collect();
        let docs = include_str!("../../docs/metrics.md").lines();
        let rows = docs.filter_map(|line| line.strip_prefix("| `"));
        let mut told: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
        shown.sort_unstable();
        told.sort_unstable();
        assert_eq!(told, shown);
    }

    /// A family without a value is not on the page. Whoever adds one has to name it here.
    fn show_one_of_each(inner: &Inner) {
        let Inner {
            registry: _,
            requests,
            tokens,
            records,
            refreshes,
            polls: _,
            accounts,
            ends,
            failing,
            cooling_down,
            quota,
            begun,
            recorded,
            revision: _,
            left_out: _,
            held,
            behind,
            gone,
            unread,
            account_ids: _,
            platform_ids: _,
        } = inner;
        let name = String::new;
        drop(requests.get_or_create(&OfRequest {
            platform: name(),
            account: name(),
            status: NONE,
        }));
        drop(tokens.get_or_create(&OfTokens {
            platform: name(),
            account: name(),
            kind: NONE,
        }));
        for family in [records, refreshes] {
            drop(family.get_or_create(&OfOutcome { outcome: NONE }));
        }
        drop(accounts.get_or_create(&OfStatus { status: NONE }));
        for family in [ends, cooling_down] {
            drop(family.get_or_create(&OfAccount { account: name() }));
        }
        drop(failing.get_or_create(&OfFailing {
            account: name(),
            how: NONE,
            stuck: NONE,
        }));
        drop(quota.get_or_create(&OfWindow {
            account: name(),
            window: name(),
        }));
        let of_envoy = OfEnvoy {
            node: name(),
            instance: name(),
        };
        for family in [begun, recorded] {
            drop(family.get_or_create(&of_envoy));
        }
        for family in [held, behind, gone, unread] {
            drop(family.get_or_create(&of_envoy));
        }
    }

    #[tokio::test]
    async fn an_account_whose_refreshes_fail_is_shown() {
        let outer = tempfile::tempdir().unwrap();
        let state = StateDir::open(&outer.path().join("state")).unwrap();
        let store = Store::open(&state, crate::keys::fixed(1)).await.unwrap();
        let now = UnixMillis(1_790_000_000_000);
        let tokens = OAuthTokens {
            access: "access".into(),
            refresh: "refresh".into(),
            id: None,
            client: None,
        };
        let new = NewAccount {
            name: "alice",
            platform: "codex",
            credential: Credential::OAuth(tokens),
            vars: BTreeMap::new(),
            credential_expires_at: None,
            base_url: None,
        };
        let terms = Terms::default();
        let saved = store.save_account(new, &terms, false, now).await;
        saved.unwrap();
        let id = store.account("alice").await.unwrap().id;
        let renewal = |_: &str, _| Renewal::Minted;
        let life = Duration::from_secs(60);
        let Claimed::Ours(claim) = store.claim(&id, 1, now, life, &renewal).await.unwrap() else {
            panic!("it is free");
        };
        let retry = Retry {
            at: now,
            failures: 1,
            failing: Some(Failing::noted(None, Failure::Refused, "HTTP 403", now)),
            unanswered: 0,
        };
        store.retry_later(&claim, retry).await.unwrap();
        let metrics = Metrics::default();
        let name = "latchkey_account_refresh_failing_since_timestamp_seconds";
        for (hours, stuck) in [(0, "no"), (1, "yes")] {
            let later = now.plus(hours * Duration::from_secs(60 * 60));
            let page = metrics.page(&store, later).await.unwrap();
            let line =
                format!("{name}{{account=\"{id}\",how=\"refused\",stuck=\"{stuck}\"}} 1790000000");
            let found: Vec<&str> = page.lines().filter(|line| line.starts_with(name)).collect();
            assert_eq!(found, [line]);
        }
        store.disable("alice", now).await.unwrap();
        let page = metrics
            .page(&store, now.plus(Duration::from_secs(7_200)))
            .await;
        assert!(page.unwrap().contains("stuck=\"no\""));
    }

    #[tokio::test]
    async fn what_is_used_of_a_quota_and_who_cools_down_is_shown() {
        let outer = tempfile::tempdir().unwrap();
        let state = StateDir::open(&outer.path().join("state")).unwrap();
        let store = Store::open(&state, crate::keys::fixed(1)).await.unwrap();
        let now = UnixMillis(1_790_000_000_000);
        let new = NewAccount {
            name: "alice",
            platform: "openai",
            credential: Credential::ApiKey("sk-secret".into()),
            vars: BTreeMap::new(),
            credential_expires_at: None,
            base_url: None,
        };
        let saved = store.save_account(new, &Terms::default(), false, now).await;
        saved.unwrap();
        let account = store.account("alice").await.unwrap().id;
        let reports = json!([
            {"kind": "cooling_down", "account": account.as_str(), "scope": "account", "until": now.0 + 60_000,
             "guessed": false, "reason": "rate_limited", "at": now.0},
            {"kind": "quota", "account": account.as_str(), "at": now.0, "windows": [
                {"name": "5h", "used_percent": 62.5, "resets_at": now.0 + 90_000},
                {"name": "7d", "used_percent": 120.0},
            ]},
        ]);
        let reports: Vec<Report> = serde_json::from_value(reports).unwrap();
        store.take_reports(&reports, now).await.unwrap();
        let metrics = Metrics::default();
        let until = "account_cooling_down_until_timestamp_seconds";
        let used = "account_quota_used_ratio";
        let cools_down = format!("latchkey_{until}{{account=\"{account}\"}} 1790000060");
        let of_week = format!("latchkey_{used}{{account=\"{account}\",window=\"7d\"}} 1.2");
        let of_hours =
            |share: &str| format!("latchkey_{used}{{account=\"{account}\",window=\"5h\"}} {share}");
        for (seconds, expected) in [
            (0, vec![cools_down, of_hours("0.625"), of_week.clone()]),
            (61, vec![of_hours("0.625"), of_week.clone()]),
            (91, vec![of_hours("0.0"), of_week]),
        ] {
            let later = now.plus(Duration::from_secs(seconds));
            let page = metrics.page(&store, later).await.unwrap();
            let is_about = |line: &&str| {
                !line.starts_with('#') && (line.contains(until) || line.contains(used))
            };
            let mut found: Vec<&str> = page.lines().filter(is_about).collect();
            found.sort_unstable();
            assert_eq!(found, expected, "after {seconds} s");
        }
    }

    #[tokio::test]
    async fn an_account_past_its_end_is_counted_as_ended() {
        let outer = tempfile::tempdir().unwrap();
        let state = StateDir::open(&outer.path().join("state")).unwrap();
        let store = Store::open(&state, crate::keys::fixed(1)).await.unwrap();
        let (start, end) = (UnixMillis(1), UnixMillis(5));
        for name in ["ends", "disabled", "stays"] {
            let new = NewAccount {
                name,
                platform: "openai",
                credential: Credential::ApiKey("sk-secret".into()),
                vars: BTreeMap::new(),
                credential_expires_at: None,
                base_url: None,
            };
            let terms = Terms {
                expires_at: (name != "stays").then_some(Some(end)),
                ..Terms::default()
            };
            let saved = store.save_account(new, &terms, false, start);
            saved.await.unwrap();
        }
        store.disable("disabled", start).await.unwrap();
        let metrics = Metrics::default();
        for (now, active, ended) in [(start, 2, 0), (end, 1, 1)] {
            let page = metrics.page(&store, now).await.unwrap();
            for (status, number) in [("active", active), ("ended", ended), ("disabled", 1)] {
                let line = format!("latchkey_accounts{{status=\"{status}\"}} {number}");
                assert!(page.lines().any(|found| found == line), "{line}: {page}");
            }
        }
    }
}
