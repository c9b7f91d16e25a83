//! The snapshot as the store holds it: the records that changed after a revision, and the page that says so.

use std::collections::BTreeMap;

use latchkey::dialect::Demands;
use latchkey::header::HeaderText;
use latchkey::id::Id;
use latchkey::secret::Secret;
use latchkey::snapshot::bucket::Rooms;
use latchkey::snapshot::page::{Epoch, MAX_PAGE_BYTES, PageHeader};
use latchkey::snapshot::{self, Kind, Record, Removed, fit};
use secrecy::ExposeSecret;

use super::error::Unfit;
use super::left_out::{self, Entry, LeftOut};
use super::limits::{LimitRow, OwnLimitRow};
use super::pools::{PoolRow, tier_of, weight_of};
use super::publish::PlatformRow;
use super::rules::{Rules, rule_columns};
use super::sql::{self, JsonText, limit_columns, own_limit_columns, signed};
use super::sqlite::{self, Connection};
use super::{Error, Result, Store, corrupt, head, health, unsigned};
use crate::base_url::BaseUrl;
use crate::clock::UnixMillis;
use crate::cluster::ClusterKey;
use crate::credential::Credential;
use crate::egress::Proxy;
use crate::fault;
use crate::id::AccountId;
use crate::keys::seal::Binding;
use crate::limits::{LimitSettings, OwnLimits};

/// An answer to a poll.
#[derive(Debug)]
pub struct SnapshotPage {
    /// The page.
    pub bytes: Vec<u8>,
    /// True if it tells the poller anything: records, a reset, or a revision that moved.
    pub news: bool,
}

/// The records of a page.
struct Changes {
    entries: Vec<Entry>,
    left_out: Vec<LeftOut>,
    /// The revision that they lead to.
    to: u64,
}

/// An account that may serve requests, with its platform's record.
#[derive(sqlx::FromRow)]
struct AccountRow {
    name: String,
    platform: String,
    kind: String,
    vars: Vec<u8>,
    #[sqlx(try_from = "i64")]
    generation: u64,
    credential: Vec<u8>,
    credential_expires_at: Option<UnixMillis>,
    expires_at: Option<UnixMillis>,
    #[sqlx(try_from = "JsonText<snapshot::Models>")]
    models: snapshot::Models,
    #[sqlx(try_from = "JsonText<snapshot::ModelMaps>")]
    maps: snapshot::ModelMaps,
    base_url: Option<String>,
    proxy: Option<Vec<u8>>,
    #[sqlx(flatten, try_from = "OwnLimitRow")]
    limits: OwnLimits,
    #[sqlx(flatten)]
    published: PlatformRow,
}

/// An account as its requests are made.
#[derive(Debug)]
pub struct Outgoing {
    /// With its credential.
    pub account: snapshot::Account,
    /// Its own base URL speaks TLS; none for an account that is at its platform's.
    pub tls: Option<bool>,
    /// The proxy of its own, by which they leave.
    pub proxy: Option<Proxy>,
}

/// A client key, revoked ones included.
#[derive(sqlx::FromRow)]
struct KeyRow {
    name: String,
    #[sqlx(try_from = "String")]
    sha256: snapshot::KeyHash,
    pool: String,
    #[sqlx(try_from = "JsonText<snapshot::Models>")]
    models: snapshot::Models,
    #[sqlx(flatten)]
    rules: Rules,
    #[sqlx(try_from = "JsonText<Demands>")]
    demands: Demands,
    may_choose_account: bool,
    revoked_at: Option<UnixMillis>,
    expires_at: Option<UnixMillis>,
    #[sqlx(flatten, try_from = "LimitRow")]
    limits: LimitSettings,
}

sql::statements! {
    /// Every record that changed after a revision, oldest change first. Gone ones come as tombstones.
    CHANGED = "SELECT revision, 'platform' AS kind, id FROM platforms WHERE revision > $1 \
               UNION ALL SELECT revision, 'doors', id FROM doors WHERE revision > $1 \
               UNION ALL SELECT revision, 'account', id FROM accounts WHERE revision > $1 \
               UNION ALL SELECT revision, 'pool', id FROM pools WHERE revision > $1 \
               UNION ALL SELECT revision, 'key', id FROM client_keys WHERE revision > $1 \
               UNION ALL SELECT revision, 'health', account FROM health WHERE revision > $1 \
               UNION ALL SELECT revision, 'removed ' || kind, id FROM tombstones WHERE revision > $1 ORDER BY revision";
    ACCOUNTS_REVISION = "SELECT coalesce(max(revision), 0) FROM (SELECT max(revision) AS revision FROM accounts \
                         UNION ALL SELECT max(revision) FROM platforms \
                         UNION ALL SELECT max(revision) FROM tombstones) AS changes";
    ACCOUNT = concat!(
        "SELECT name, platform, kind, vars, generation, credential, credential_expires_at, expires_at, models, maps, \
         base_url, proxy, platforms.id, platforms.record, platforms.authority, platforms.limits, platforms.seal, ",
        own_limit_columns!(),
        " FROM accounts JOIN platforms ON platforms.id = platform LEFT JOIN egress ON egress.account = accounts.id WHERE accounts.id = $1 \
         AND (status = 'active' OR CAST($2 AS BIGINT) = 1)"
    );
    POOL = concat!("SELECT id, policy, ", rule_columns!(), " FROM pools WHERE id = $1");
    MEMBERS = "SELECT account, weight, tier FROM pool_members WHERE pool = $1 ORDER BY position";
    KEY = concat!(
        "SELECT name, sha256, pool, models, may_choose_account = 1 AS may_choose_account, revoked_at, expires_at, demands, ",
        rule_columns!(),
        ", ",
        limit_columns!(),
        " FROM client_keys WHERE id = $1"
    );
    CHOICES = "SELECT pool FROM client_key_pools WHERE client_key = $1 ORDER BY pool";
    PLACES_IN_USE = "SELECT DISTINCT platform, base_url FROM accounts \
                     WHERE id NOT IN (SELECT account FROM egress)";
    PLACES_BY_PROXIES = "SELECT egress.account, platform, base_url, proxy FROM egress \
                         JOIN accounts ON accounts.id = egress.account";
}

impl Store {
    /// The page for a poller that holds `since` of `epoch`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn page(&self, epoch: Option<Epoch>, since: u64) -> Result<SnapshotPage> {
        if self.has_lost(epoch, since).await? {
            self.begin_epoch().await?;
        }
        let mut transaction = sqlite::begin_read(&self.pool).await?;
        let (ours, revision) = head(&mut transaction).await?;
        let reset = epoch != Some(ours) || since == 0;
        let from = if reset { 0 } else { since };
        let changes = self.changes(&mut transaction, from, revision).await?;
        let news = reset || changes.to > from;
        let Changes {
            mut entries,
            mut left_out,
            to,
        } = changes;
        let encode = |entries: &[Entry]| {
            let lines = entries.iter().map(|entry| entry.line.as_str());
            PageHeader::encode(ours, reset, (from, to), to < revision, lines)
        };
        let bytes = {
            let mut rooms = self.left_out.rooms(from == 0);
            left_out::readable_page(&mut entries, &mut left_out, &mut rooms, encode)?
        };
        self.left_out.note(&entries, &left_out);
        Ok(SnapshotPage { bytes, news })
    }

    /// Every record that pages leave out now.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn left_out(&self) -> Result<Vec<LeftOut>> {
        let mut transaction = sqlite::begin_read(&self.pool).await?;
        let (ours, revision) = head(&mut transaction).await?;
        let (mut all, mut from, mut rooms) = (Vec::new(), 0, Rooms::default());
        loop {
            let changes = self.changes(&mut transaction, from, revision).await?;
            let Changes {
                mut entries,
                mut left_out,
                to,
            } = changes;
            let encode = |entries: &[Entry]| {
                let lines = entries.iter().map(|entry| entry.line.as_str());
                PageHeader::encode(ours, false, (from, to), false, lines)
            };
            left_out::readable_page(&mut entries, &mut left_out, &mut rooms, encode)?;
            all.append(&mut left_out);
            if to >= revision {
                return Ok(all);
            }
            from = to;
        }
    }

    /// Returns how many records the pages of this process leave out.
    pub fn count_left_out(&self) -> usize {
        self.left_out.count()
    }

    /// The revision of the last change of an account or a platform, also of one that is gone.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn accounts_revision(&self) -> Result<u64> {
        let revision: i64 = sqlx::query_scalar(ACCOUNTS_REVISION)
            .fetch_one(&self.pool)
            .await?;
        unsigned("accounts.revision", revision)
    }

    /// True if the poller has seen a later state of our history than we have: we were restored from a backup.
    async fn has_lost(&self, epoch: Option<Epoch>, since: u64) -> Result<bool> {
        let (ours, revision) = self.head().await?;
        Ok(epoch == Some(ours) && since > revision)
    }

    async fn begin_epoch(&self) -> Result<()> {
        tracing::warn!(
            "Envoy has seen a later state of this database: it was restored from a backup; sending it anew"
        );
        self.publish_anew().await
    }

    /// Has every Envoy read everything anew: what is in records that did not change means something else now.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn publish_anew(&self) -> Result<()> {
        let mut change = self.change().await?;
        change.new_epoch().await?;
        change.commit().await
    }

    /// The clusters that the accounts use, each once, with the proxy of the account that has one for itself.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn clusters(&self) -> Result<BTreeMap<ClusterKey, Option<Proxy>>> {
        let places: Vec<(String, Option<String>)> =
            sqlx::query_as(PLACES_IN_USE).fetch_all(&self.pool).await?;
        // An account whose base URL or proxy cannot be used is not published, and lacks no cluster.
        let shared = places.iter().filter_map(|(platform, base_url)| {
            let base_url = own_base_url(base_url.as_deref()).ok()?;
            Some((ClusterKey::of(platform, base_url.as_ref()), None))
        });
        let places: Vec<(String, String, Option<String>, Vec<u8>)> =
            sqlx::query_as(PLACES_BY_PROXIES)
                .fetch_all(&self.pool)
                .await?;
        let alone = places
            .iter()
            .filter_map(|(id, platform, base_url, sealed)| {
                let base_url = own_base_url(base_url.as_deref()).ok()?;
                let proxy = self.open_proxy(id, platform, sealed).ok()?;
                let key = ClusterKey::of(platform, base_url.as_ref());
                Some((key.alone(Some(account_id(id).ok()?)), Some(proxy)))
            });
        Ok(shared.chain(alone).collect())
    }

    /// The changed records, as many as fit on a page. One that cannot be read from the database gives way to its removal:
    /// it costs no other.
    async fn changes(
        &self,
        connection: &mut Connection,
        from: u64,
        revision: u64,
    ) -> Result<Changes> {
        let changed: Vec<(i64, String, String)> = sqlx::query_as(CHANGED)
            .bind(signed(from))
            .fetch_all(&mut *connection)
            .await?;
        let mut changes = Changes {
            entries: Vec::new(),
            left_out: Vec::new(),
            to: from,
        };
        let mut bytes = 0;
        for (changed_at, kind, id) in changed {
            let changed_at = unsigned("revision", changed_at)?;
            let word = kind.strip_prefix("removed ").unwrap_or(&kind);
            // No release of ours has written another one.
            let Some(of) = Kind::from_word(word) else {
                continue;
            };
            let record = match self.record(connection, &kind, id.clone()).await {
                Ok(record) => record
                    .to_line()
                    .map(|line| (record, line))
                    .map_err(|error| error.to_string()),
                Err(error) if left_out::is_of_one_record(&error) => Err(error.to_string()),
                Err(error) => return Err(error),
            };
            let entry = match record {
                // Who starts anew holds nothing that could be removed.
                Ok((Record::Removed(_), _)) if from == 0 => None,
                Ok((_, line)) => Some(Entry { kind: of, id, line }),
                Err(why) => {
                    let entry = Entry::removal(of, &id).filter(|_| from > 0);
                    changes.left_out.push(LeftOut { kind: of, id, why });
                    entry
                }
            };
            if let Some(entry) = entry {
                bytes += entry.line.len() + 1;
                if bytes > MAX_PAGE_BYTES && !changes.entries.is_empty() {
                    return Ok(changes);
                }
                changes.entries.push(entry);
            }
            changes.to = changed_at;
        }
        changes.to = revision;
        Ok(changes)
    }

    async fn record(&self, connection: &mut Connection, kind: &str, id: String) -> Result<Record> {
        Ok(match kind {
            "doors" => doors_from_line(&self.published_doors(connection, &id).await?)?,
            "platform" => {
                let line = self.published_platform(connection, &id).await?;
                Record::Platform(platform_from_line(&line)?)
            }
            "account" => self.account_record(connection, id).await?,
            "pool" => pool(connection, id).await?,
            "key" => client_key(connection, id).await?,
            "health" => health::record(connection, &id).await?,
            "removed platform" => removed(Kind::Platform, &id)?,
            "removed pool" => removed(Kind::Pool, &id)?,
            _ => removed(Kind::Account, &id)?,
        })
    }

    /// The account, if it may serve requests; else a tombstone.
    async fn account_record(&self, connection: &mut Connection, id: String) -> Result<Record> {
        match self.outgoing(connection, &id, false).await? {
            Some(Outgoing { account, .. }) => Ok(Record::Account(account)),
            None => removed(Kind::Account, &id),
        }
    }

    /// The account as its requests are made, if it may serve some, or whatever `any` says of that. None where its
    /// platform is off.
    pub(super) async fn outgoing(
        &self,
        connection: &mut Connection,
        id: &str,
        any: bool,
    ) -> Result<Option<Outgoing>> {
        let row: Option<AccountRow> = sqlx::query_as(ACCOUNT)
            .bind(id)
            .bind(i64::from(any))
            .fetch_optional(&mut *connection)
            .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        self.require_platform(&row.published)?;
        let proxy = match &row.proxy {
            Some(sealed) => Some(self.open_proxy(id, &row.platform, sealed)?),
            None => None,
        };
        let alone = proxy.as_ref().map(|_| account_id(id)).transpose()?;
        let Some(credential) = self.outgoing_credential(id, &row)? else {
            return Ok(None);
        };
        let base_url = own_base_url(row.base_url.as_deref())?;
        let authority = match &base_url {
            Some(url) => url.authority.clone(),
            None => header_text("platforms.authority", &row.published.authority)?,
        };
        let record = platform_from_line(&row.published.record)?;
        let default_limits = default_limits(&row.published.limits)?;
        let vars = self.outgoing_vars(id, &row, &record)?;
        let tls = base_url.as_ref().map(|url| url.origin.tls);
        let cluster = ClusterKey::of(&row.platform, base_url.as_ref()).alone(alone);
        let account = snapshot::Account {
            cluster: parse_id(&cluster.name())?,
            id: parse_id(id)?,
            name: header_text("accounts.name", &row.name)?,
            platform: parse_id(&row.platform)?,
            base_path: base_url.map(|url| url.path),
            authority,
            credential: Secret::new(credential.on_the_wire().expose_secret()),
            vars,
            generation: row.generation,
            credential_expires_at: time(
                "accounts.credential_expires_at",
                row.credential_expires_at,
            )?,
            expires_at: time("accounts.expires_at", row.expires_at)?,
            models: row.models,
            maps: row.maps,
            limits: row.limits.over(&default_limits).settings.limits,
            needles: snapshot::Needles::default(),
        };
        let unfit = |unfit| Error::Unfit {
            record: fault::Kind::Account,
            name: row.name.clone(),
            unfit: Unfit::Request(unfit),
        };
        fit::check(&record, &account).map_err(unfit)?;
        Ok(Some(Outgoing {
            account,
            tls,
            proxy,
        }))
    }

    /// Opens an account's credential; none where its first token is still to come.
    fn outgoing_credential(&self, id: &str, row: &AccountRow) -> Result<Option<Credential>> {
        let binding = Binding {
            record: id,
            generation: row.generation,
            platform: &row.platform,
            kind: &row.kind,
            base_url: row.base_url.as_deref(),
        };
        let credential = self.open_credential(binding, &row.credential)?;
        if credential.awaits_token() {
            return Ok(None);
        }
        if credential.is_empty() {
            return Err(Error::NeedsLogin {
                account: row.name.clone(),
                platform: row.platform.clone(),
                is_client: credential.is_client(),
            });
        }
        Ok(Some(credential))
    }

    /// Opens the vars of an account that go out. Envoy needs no more of a person: who it is, is nobody's there.
    fn outgoing_vars(
        &self,
        id: &str,
        row: &AccountRow,
        platform: &snapshot::Platform,
    ) -> Result<BTreeMap<String, HeaderText>> {
        let known = self.open_vars(id, &row.platform, &row.vars)?.into_iter();
        known
            .filter(|(name, _)| platform.vars().any(|used| used == name))
            .map(|(name, value)| Ok((name, header_text("accounts.vars", &value)?)))
            .collect()
    }
}

fn account_id(id: &str) -> Result<AccountId> {
    AccountId::parse(id).ok_or_else(|| corrupt("accounts.id", format!("{id:?}")))
}

/// Reads the base URL of an account's own. The store holds none that was not checked, by this release or an older one.
fn own_base_url(text: Option<&str>) -> Result<Option<BaseUrl>> {
    let url = text.map(BaseUrl::stored).transpose();
    url.map_err(|error| corrupt("accounts.base_url", error.to_string()))
}

fn doors_from_line(line: &str) -> Result<Record> {
    Record::from_line(line.as_bytes()).map_err(|error| corrupt("doors.record", error.to_string()))
}

fn default_limits(text: &str) -> Result<LimitSettings> {
    serde_json::from_str(text).map_err(|error| corrupt("platforms.limits", error.to_string()))
}

fn platform_from_line(line: &str) -> Result<snapshot::Platform> {
    match Record::from_line(line.as_bytes()) {
        Ok(Record::Platform(platform)) => Ok(platform),
        Ok(_) => Err(corrupt("platforms.record", "another kind of record")),
        Err(error) => Err(corrupt("platforms.record", error.to_string())),
    }
}

async fn pool(connection: &mut Connection, id: String) -> Result<Record> {
    let row: PoolRow = sqlx::query_as(POOL)
        .bind(&id)
        .fetch_one(&mut *connection)
        .await?;
    let members: Vec<(String, i64, i64)> = sqlx::query_as(MEMBERS)
        .bind(&id)
        .fetch_all(connection)
        .await?;
    let member = |(account, weight, tier): (String, i64, i64)| {
        Ok(snapshot::Member {
            account: parse_id(&account)?,
            weight: weight_of(weight)?,
            tier: tier_of(tier)?,
        })
    };
    let policy = row.policy()?;
    let Rules {
        maps,
        untranslated,
        exact_model,
    } = row.rules;
    let members = members.into_iter().map(member).collect::<Result<_>>()?;
    Ok(Record::Pool(snapshot::Pool {
        id: parse_id(&id)?,
        policy,
        members,
        maps,
        untranslated,
        exact_model,
    }))
}

async fn client_key(connection: &mut Connection, id: String) -> Result<Record> {
    let row: KeyRow = sqlx::query_as(KEY)
        .bind(&id)
        .fetch_one(&mut *connection)
        .await?;
    if row.revoked_at.is_some() {
        return removed(Kind::Key, &id);
    }
    let pools: Vec<String> = sqlx::query_scalar(CHOICES)
        .bind(&id)
        .fetch_all(connection)
        .await?;
    let pools = pools.iter().map(|pool| parse_id(pool));
    Ok(Record::Key(snapshot::ClientKey {
        id: parse_id(&id)?,
        sha256: row.sha256,
        pool: parse_id(&row.pool)?,
        models: row.models,
        maps: row.rules.maps,
        untranslated: row.rules.untranslated,
        exact_model: row.rules.exact_model,
        demands: row.demands,
        may_choose: snapshot::MayChoose {
            account: row.may_choose_account,
            pools: pools.collect::<Result<_>>()?,
        },
        name: Some(header_text("client_keys.name", &row.name)?),
        expires_at: time("client_keys.expires_at", row.expires_at)?,
        limits: row.limits.limits,
    }))
}

fn header_text(column: &'static str, text: &str) -> Result<HeaderText> {
    HeaderText::try_from(text).map_err(|_| corrupt(column, "characters that no header may have"))
}

fn time(column: &'static str, time: Option<UnixMillis>) -> Result<Option<u64>> {
    time.map(|time| unsigned(column, time.0)).transpose()
}

fn removed(kind: Kind, id: &str) -> Result<Record> {
    Ok(Record::Removed(Removed {
        kind,
        id: parse_id(id)?,
    }))
}

fn parse_id(text: &str) -> Result<Id> {
    Id::try_from(text).map_err(|_| corrupt("id", format!("{text:?}")))
}
